//! JSON pointers (RFC 6901), taken apart once.

use serde_json::Value;

/// Where a value stands in a JSON document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pointer {
    tokens: Vec<String>,
}

impl Pointer {
    /// Takes a pointer apart: it is empty, or begins with `/`, and has no `~` but `~0` and `~1`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self { tokens: Vec::new() });
        }
        let tokens = text.strip_prefix('/')?.split('/').map(unescape);
        Some(Self {
            tokens: tokens.collect::<Option<_>>()?,
        })
    }

    /// Finds what it points to.
    pub(crate) fn find<'a>(&self, document: &'a Value) -> Option<&'a Value> {
        let mut found = document;
        for token in &self.tokens {
            found = match found {
                Value::Object(fields) => fields.get(token)?,
                Value::Array(items) => items.get(index(token)?)?,
                _ => return None,
            };
        }
        Some(found)
    }
}

fn unescape(token: &str) -> Option<String> {
    let mut text = String::with_capacity(token.len());
    let mut rest = token.chars();
    while let Some(letter) = rest.next() {
        text.push(match letter {
            '~' => match rest.next()? {
                '0' => '~',
                '1' => '/',
                _ => return None,
            },
            letter => letter,
        });
    }
    Some(text)
}

/// The number of an item: digits without a leading zero.
fn index(token: &str) -> Option<usize> {
    let is_number = token == "0" || !token.starts_with(['0', '+']);
    is_number.then(|| token.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(pointer: &str, expected: Option<&Value>) {
        let document = json!({
            "": 1, "a": {"b": [10, {"c": 11}]}, "x/y": 2, "x~y": 3, "~1": 4, "01": 5, "ä": 6,
        });
        let found = Pointer::parse(pointer).and_then(|it| it.find(&document).cloned());
        assert_eq!(found.as_ref(), expected, "{pointer:?}");
        // Another reading of the same rules.
        let is_valid = Pointer::parse(pointer).is_some();
        let theirs = is_valid.then(|| document.pointer(pointer).cloned());
        assert_eq!(found, theirs.flatten(), "{pointer:?}");
    }

    #[test]
    fn pointers_find_what_they_point_to() {
        check("/", Some(&json!(1)));
        check("/a/b", Some(&json!([10, {"c": 11}])));
        check("/a/b/0", Some(&json!(10)));
        check("/a/b/1/c", Some(&json!(11)));
        check("/x~1y", Some(&json!(2)));
        check("/x~0y", Some(&json!(3)));
        check("/~01", Some(&json!(4)));
        check("/01", Some(&json!(5)));
        check("/ä", Some(&json!(6)));
        for nothing in [
            "/a/b/2",
            "/a/b/00",
            "/a/b/+0",
            "/a/b/-",
            "/a/b/0/c",
            "/b",
            "/a/b/99999999999999999999",
        ] {
            check(nothing, None);
        }
    }

    #[test]
    fn what_is_no_pointer_is_refused() {
        for text in ["a", "a/b", "/~", "/~2", "/a~/b"] {
            assert_eq!(Pointer::parse(text), None, "{text:?}");
        }
    }
}
