//! Just enough of Rust's lexical rules to tell code, text and comments apart.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// An identifier, a keyword or a number.
    Word,
    /// One character of punctuation.
    Mark,
    /// The inside of a string literal, escapes as written.
    Text,
    /// A comment that is no documentation, with its slashes.
    Comment,
    /// A documentation comment, with its slashes.
    Doc,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token<'a> {
    pub(super) kind: TokenKind,
    pub(super) text: &'a str,
    /// 1-based line of its first character.
    pub(super) line: usize,
}

impl Token<'_> {
    pub(super) fn is_word(&self, word: &str) -> bool {
        self.kind == TokenKind::Word && self.text == word
    }

    pub(super) fn is_mark(&self, mark: &str) -> bool {
        self.kind == TokenKind::Mark && self.text == mark
    }

    pub(super) fn is_code(&self) -> bool {
        !matches!(self.kind, TokenKind::Comment | TokenKind::Doc)
    }
}

/// Splits Rust source into tokens; source that does not compile gives some tokens, never a panic.
pub(super) fn tokens(source: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = source;
    let mut line = 1;
    while let Some(first) = rest.chars().next() {
        let (piece, after) = if first.is_whitespace() {
            (None, &rest[first.len_utf8()..])
        } else {
            let (kind, text, after) = next(rest, first);
            (Some(Token { kind, text, line }), after)
        };
        tokens.extend(piece);
        let bytes_read = rest.len() - after.len();
        line += rest[..bytes_read].matches('\n').count();
        rest = after;
    }
    tokens
}

/// The token that `rest` starts with, and what comes after it.
fn next(rest: &str, first: char) -> (TokenKind, &str, &str) {
    if rest.starts_with("//") {
        let (text, after) = rest.split_at(rest.find('\n').unwrap_or(rest.len()));
        let is_doc =
            text.starts_with("//!") || (text.starts_with("///") && !text.starts_with("////"));
        return (
            if is_doc {
                TokenKind::Doc
            } else {
                TokenKind::Comment
            },
            text,
            after,
        );
    }
    if rest.starts_with("/*") {
        let (text, after) = rest.split_at(block_comment_bytes(rest));
        let is_doc = text.starts_with("/*!")
            || (text.starts_with("/**") && !text.starts_with("/***") && text != "/**/");
        return (
            if is_doc {
                TokenKind::Doc
            } else {
                TokenKind::Comment
            },
            text,
            after,
        );
    }
    if first == '"' {
        return quoted(&rest[1..]);
    }
    if first == '\'' {
        return quote_or_lifetime(rest);
    }
    if first.is_alphanumeric() || first == '_' {
        let end = rest
            .find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        return match word {
            "r" | "br" | "cr" => raw_string(after).unwrap_or((TokenKind::Word, word, after)),
            "b" | "c" if after.starts_with('"') => quoted(&after[1..]),
            "b" if after.starts_with('\'') => quote_or_lifetime(after),
            _ => (TokenKind::Word, word, after),
        };
    }
    let (mark, after) = rest.split_at(first.len_utf8());
    (TokenKind::Mark, mark, after)
}

fn block_comment_bytes(rest: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(found) = rest[at..].find(['/', '*']) {
        let here = &rest[at + found..];
        let (deeper, bytes) = match here.get(..2) {
            Some("/*") => (depth + 1, 2),
            Some("*/") => (depth.saturating_sub(1), 2),
            _ => (depth, 1),
        };
        depth = deeper;
        at += found + bytes;
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

/// `rest` starts behind the opening quote.
fn quoted(rest: &str) -> (TokenKind, &str, &str) {
    let mut is_escaped = false;
    for (at, byte) in rest.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return (TokenKind::Text, &rest[..at], &rest[at + 1..]),
            _ => {}
        }
    }
    (TokenKind::Text, rest, "")
}

/// `rest` starts behind the `r`; `None` when that was an ordinary word.
fn raw_string(rest: &str) -> Option<(TokenKind, &str, &str)> {
    let inside = rest.trim_start_matches('#');
    let hashes = &rest[..rest.len() - inside.len()];
    let inside = inside.strip_prefix('"')?;
    let close = format!("\"{hashes}");
    let (text, after) = inside.split_once(&close).unwrap_or((inside, ""));
    Some((TokenKind::Text, text, after))
}

/// A character literal is skipped as text; the quote of a lifetime is a mark.
fn quote_or_lifetime(rest: &str) -> (TokenKind, &str, &str) {
    let inside = &rest[1..];
    let mut characters = inside.char_indices();
    let end = match (characters.next(), characters.next()) {
        (Some((_, '\\')), Some((_, escaped))) => {
            let from = 1 + escaped.len_utf8();
            inside[from..].find('\'').map(|found| from + found)
        }
        (Some(_), Some((at, '\''))) => Some(at),
        _ => None,
    };
    match end {
        Some(end) => (TokenKind::Text, &inside[..end], &inside[end + 1..]),
        None => (TokenKind::Mark, &rest[..1], inside),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(source: &str, expected: &[(TokenKind, &str, usize)]) {
        let found: Vec<_> = tokens(source)
            .iter()
            .map(|it| (it.kind, it.text, it.line))
            .collect();
        assert_eq!(found, expected, "in {source:?}");
    }

    #[test]
    fn code_text_and_comments_are_told_apart() {
        use TokenKind::{Comment, Doc, Mark, Text, Word};
        check(
            "a // b\n/// c",
            &[(Word, "a", 1), (Comment, "// b", 1), (Doc, "/// c", 2)],
        );
        check(
            "//// x\n//! y",
            &[(Comment, "//// x", 1), (Doc, "//! y", 2)],
        );
        check(
            "/* a /* b */ */c",
            &[(Comment, "/* a /* b */ */", 1), (Word, "c", 1)],
        );
        check("/** a\n */ b", &[(Doc, "/** a\n */", 1), (Word, "b", 2)]);
        check(
            r#""// \" no" z"#,
            &[(Text, r#"// \" no"#, 1), (Word, "z", 1)],
        );
        check(
            "r#\"a\"b\"# r#mod",
            &[
                (Text, "a\"b", 1),
                (Word, "r", 1),
                (Mark, "#", 1),
                (Word, "mod", 1),
            ],
        );
        check(
            r"'\'' '/' b'\\'",
            &[(Text, r"\'", 1), (Text, "/", 1), (Text, r"\\", 1)],
        );
        check(
            "&'a b",
            &[
                (Mark, "&", 1),
                (Mark, "'", 1),
                (Word, "a", 1),
                (Word, "b", 1),
            ],
        );
    }

    #[test]
    fn source_that_ends_inside_a_token_gives_what_there_is() {
        for source in ["\"a", "/* a", "'", "'\\", "r#\"a", "b\"", "/", "*", "//"] {
            assert!(!tokens(source).is_empty(), "in {source:?}");
        }
    }
}
