//! Comments give the why: no marks of unfinished work, no history of the project, no banners, no
//! code that was switched off. Tests are run or removed, never switched off either.

use super::Finding;
use super::lexer::{Token, TokenKind, tokens};
use super::modules::attribute_tokens;
use super::tree::Tree;

const UNFINISHED: [&str; 3] = ["fixme", "todo", "xxx"];

/// With a number behind them these speak of how the project is run, not of the code.
const PROJECT_WORDS: [&str; 7] = [
    "issue",
    "milestone",
    "phase",
    "pr",
    "sprint",
    "story",
    "ticket",
];

/// A run of one of these is a banner.
const BANNER_MARKS: [char; 9] = ['=', '-', '*', '#', '~', '_', '─', '═', '━'];
const BANNER_RUN: usize = 4;

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    tree.rust_files()
        .flat_map(|(path, text)| {
            let tokens = tokens(text);
            let comments = tokens.iter().filter(|token| !token.is_code());
            let mut findings: Vec<Finding> = comments
                .flat_map(|comment| check_comment(path, comment))
                .collect();
            findings.extend(tests_switched_off(path, &tokens));
            findings
        })
        .collect()
}

fn check_comment(path: &str, comment: &Token<'_>) -> Vec<Finding> {
    let lines = comment.text.lines().zip(comment.line..);
    lines
        .flat_map(|(line, number)| {
            let words = bare(line);
            let plain = comment.kind == TokenKind::Comment;
            [
                unfinished_mark(words),
                project_history(words),
                (plain && is_banner(line)).then(|| "a banner".to_owned()),
                (plain && is_code(words)).then(|| "code in a comment".to_owned()),
            ]
            .into_iter()
            .flatten()
            .map(move |what| Finding::new(path, number, what))
        })
        .collect()
}

/// A line of a comment without its slashes.
fn bare(line: &str) -> &str {
    line.trim()
        .trim_start_matches(['/', '*', '!'])
        .trim_end_matches("*/")
        .trim()
}

fn unfinished_mark(line: &str) -> Option<String> {
    let mut words = line.split(|c: char| !c.is_alphanumeric());
    let found = words.find(|word| UNFINISHED.iter().any(|it| word.eq_ignore_ascii_case(it)))?;
    Some(format!(
        "`{found}`: do it, or say what is missing in a document"
    ))
}

fn project_history(line: &str) -> Option<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let is_number = |word: &str| {
        let word = word
            .trim_start_matches('#')
            .trim_end_matches(['.', ',', ':', ';', ')']);
        !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit())
    };
    let numbered = words.windows(2).find(|pair| {
        let word = pair[0].trim_start_matches('(').to_ascii_lowercase();
        PROJECT_WORDS.contains(&word.as_str()) && is_number(pair[1])
    });
    let ticket = words.iter().enumerate().find(|(index, word)| {
        let number = word.trim_start_matches('(').strip_prefix('#');
        // The name of a standard: PKCS #8.
        number.is_some_and(is_number) && (*index == 0 || words[index - 1] != "PKCS")
    });
    let found = numbered
        .map(|pair| pair.join(" "))
        .or(ticket.map(|(_, word)| (*word).to_owned()))?;
    Some(format!(
        "`{found}`: numbers of phases and tickets do not outlive them"
    ))
}

fn is_banner(line: &str) -> bool {
    let line = line.trim().trim_start_matches("/*").trim_end_matches("*/");
    let inside = line.strip_prefix("//").unwrap_or(line).trim();
    let is_run = |run: &str| {
        let mark = run.chars().next();
        mark.is_some_and(|mark| BANNER_MARKS.contains(&mark) || mark == '/')
            && run.chars().count() >= BANNER_RUN
            && run.chars().all(|c| Some(c) == mark)
    };
    inside.split_whitespace().any(is_run)
}

/// Guesses that a comment is a line of code: it starts and ends like one. Sentences end otherwise.
fn is_code(line: &str) -> bool {
    let starts = [
        "let ", "pub ", "fn ", "use ", "impl ", "struct ", "enum ", "mod ", "#[", "self.", "}",
    ];
    let calls = line.ends_with(");")
        && line
            .split_once('(')
            .is_some_and(|(called, _)| !called.contains(char::is_whitespace));
    calls || (starts.iter().any(|it| line.starts_with(it)) && line.ends_with([';', '{', '}', ']']))
}

fn tests_switched_off(path: &str, tokens: &[Token<'_>]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        let attribute = &tokens[index + 1..];
        if token.is_mark("#") && attribute.first().is_some_and(|it| it.is_mark("[")) {
            let attribute = &attribute[..attribute_tokens(attribute)];
            let names = attribute.get(1).is_some_and(|it| it.is_word("ignore"))
                || (attribute.get(1).is_some_and(|it| it.is_word("cfg_attr"))
                    && attribute.iter().any(|it| it.is_word("ignore")));
            if names {
                findings.push(Finding::new(
                    path,
                    token.line,
                    "an ignored test: run it or remove it",
                ));
            }
        }
    }
    findings
}
