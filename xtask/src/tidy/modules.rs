//! Every Rust file is compiled: it is a crate root, or a `mod`, a `#[path]` or an `include!` leads
//! to it.

use std::collections::BTreeSet;

use super::Finding;
use super::lexer::{Token, TokenKind, tokens};
use super::tree::{Tree, folder_of, join, resolve};

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut reached = BTreeSet::new();
    let roots = tree
        .packages
        .iter()
        .flat_map(|package| &package.crate_roots);
    let mut open: Vec<(String, bool)> = roots.map(|path| (path.clone(), true)).collect();
    while let Some((path, is_root)) = open.pop() {
        let Some(text) = tree.texts.get(&path) else {
            continue;
        };
        if reached.insert(path.clone()) {
            open.extend(
                children(&path, is_root, text)
                    .into_iter()
                    .map(|child| (child, false)),
            );
        }
    }
    tree.rust_files()
        .filter(|(path, _)| !reached.contains(*path))
        .map(|(path, _)| Finding::new(path, 0, "no crate reaches this file"))
        .collect()
}

/// The files that the modules declared in `text` may live in; those that do not exist do no harm,
/// because the compiler refuses them.
fn children(path: &str, is_root: bool, text: &str) -> Vec<String> {
    let here = folder_of(path);
    let home = if is_root {
        here
    } else {
        path.trim_end_matches(".rs")
    };
    let tokens: Vec<Token<'_>> = tokens(text).into_iter().filter(Token::is_code).collect();
    let mut children = Vec::new();
    // A block each; the name when the block is an inline module.
    let mut blocks: Vec<Option<&str>> = Vec::new();
    let mut path_given = None;
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        let follows = &tokens[at + 1..];
        match follows {
            [open, ..] if token.is_mark("#") && open.is_mark("[") => {
                path_given = path_attribute(follows).or(path_given);
                at += attribute_tokens(follows);
            }
            [name, end, ..] if token.is_word("mod") && name.kind == TokenKind::Word => {
                if end.is_mark(";") {
                    let folder = blocks
                        .iter()
                        .flatten()
                        .fold(home.to_owned(), |it, name| join(&it, name));
                    children.push(match path_given {
                        Some(given) => resolve(here, given).unwrap_or_default(),
                        None => join(&folder, &format!("{}.rs", name.text)),
                    });
                    at += 2;
                } else if end.is_mark("{") {
                    blocks.push(Some(name.text));
                    at += 2;
                }
                path_given = None;
            }
            [bang, open, file, ..]
                if token.is_word("include") && bang.is_mark("!") && open.is_mark("(") =>
            {
                children.extend(resolve(here, file.text));
            }
            _ if token.is_mark("{") => {
                blocks.push(None);
                path_given = None;
            }
            _ if token.is_mark("}") => {
                blocks.pop();
                path_given = None;
            }
            _ if token.is_mark(";") => path_given = None,
            _ => {}
        }
        at += 1;
    }
    children
}

/// The file of `[path = "file"]`.
fn path_attribute<'a>(attribute: &[Token<'a>]) -> Option<&'a str> {
    match attribute {
        [_, path, equals, file, ..]
            if path.is_word("path") && equals.is_mark("=") && file.kind == TokenKind::Text =>
        {
            Some(file.text)
        }
        _ => None,
    }
}

/// How many tokens an attribute has, from its `[` to its `]`.
pub(super) fn attribute_tokens(tokens: &[Token<'_>]) -> usize {
    let mut depth = 0_usize;
    for (index, token) in tokens.iter().enumerate() {
        if token.is_mark("[") {
            depth += 1;
        } else if token.is_mark("]") {
            depth = depth.saturating_sub(1);
        }
        if depth == 0 {
            return index + 1;
        }
    }
    tokens.len()
}
