//! The compiler's name of a type, taken apart.
//!
//! The compiler names a closure inside the function, and that name holds the crate, the modules,
//! the impl's type and trait with their arguments, the function, and its type arguments:
//!
//! ```text
//! shop::<impl shop::Repo<u8>>::find<alloc::string::String>::{{closure}}
//! ```
//!
//! The text is not guaranteed to be stable. Parts that are known to vary are removed here; any other variation
//! is a miss, never a wrong hit. Nor is the text guaranteed to be unique: names that are known to be ambiguous
//! are detected here too.

/// A token of a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Token<'a> {
    Word(&'a str),
    /// `{{closure}}` and the like.
    Nameless(&'a str),
    Lifetime,
    /// The value of a `const C: char`.
    Char(&'a str),
    Space,
    /// `::`, `->`, or one character.
    Mark(&'a str),
}

use Token::{Char, Lifetime, Mark, Nameless, Space, Word};

const PATH: Token<'static> = Mark("::");

/// The path of a function, with its type arguments.
#[derive(Clone)]
pub(super) struct Path<'a>(Vec<Token<'a>>);

impl<'a> Path<'a> {
    #[cfg(test)]
    pub(super) fn of(text: &'a str) -> Self {
        Path(tokens(text))
    }

    /// Returns the path of the annotated function, and true if the closure is in its sibling: the function of
    /// `call = …` is another function to the compiler, but has the same identity.
    pub(super) fn of_function(closure: &'a str, function: &'a str) -> (Self, bool) {
        let mut path = tokens(closure);
        while let [rest @ .., PATH, Nameless(_)] = &path[..] {
            path.truncate(rest.len());
        }
        let last = depths(&path)
            .zip(1..)
            .filter(|&((depth, token), _)| depth == 0 && token == PATH)
            .map(|(_, next)| next)
            .last();
        let name = path.get_mut(last.unwrap_or(0));
        let Some(Word(name)) = name else {
            return (Path(path), false);
        };
        let plain = |name: &'a str| name.trim_start_matches("r#");
        let is_sibling = plain(name) != plain(function);
        *name = function;
        (Path(path), is_sibling)
    }

    /// Returns true if the function is in another function, a closure or a constant: then there may be others
    /// with this path. Types and functions are distinguished by their first letter, as is the convention; a
    /// type in lower case counts as a function.
    pub(super) fn is_local(&self, module: &str) -> bool {
        let module = tokens(module);
        let inside = self.0.strip_prefix(&module[..]).and_then(|rest| rest.strip_prefix(&[PATH]));
        let inside = inside.unwrap_or(&self.0);
        let mut segments = vec![inside.first()];
        for ((depth, token), next) in depths(inside).zip(1..) {
            if depth == 0 && token == PATH {
                segments.push(inside.get(next));
            }
        }
        match segments[..] {
            [_] | [Some(Mark("<")), _] => false,
            [Some(Word(owner)), _] => !owner.starts_with(char::is_uppercase),
            _ => true,
        }
    }

    /// Returns the reason why another type can have the same name, if there is one.
    pub(super) fn ambiguity(&self) -> Option<&'static str> {
        // The depth of the current function pointer or trait object.
        let mut signature = None;
        let mut before = Space;
        for (at, (depth, token)) in depths(&self.0).enumerate() {
            if signature.is_some_and(|of| depth < of || depth == of && ends(token)) {
                signature = None;
            }
            let is_pointer = token == Word("fn") && self.0.get(at + 1) == Some(&Mark("("));
            if depth == 0 {
                continue;
            }
            match token {
                Nameless(_) => {
                    return Some("one of its types is, or stands in, a closure or an async block");
                }
                Word("_") if before == PATH => {
                    return Some("one of its types stands in a `const _`");
                }
                Lifetime | Mark("&") if signature.is_some() => {
                    return Some(
                        "one of its types is a function pointer or trait object that borrows",
                    );
                }
                _ if (is_pointer || token == Word("dyn")) && signature.is_none() => {
                    signature = Some(depth);
                }
                _ => {}
            }
            before = token;
        }
        None
    }

    /// Returns the text as the compiler writes it, without lifetimes.
    pub(super) fn text(&self) -> String {
        self.0.iter().map(Token::text).collect()
    }

    /// Returns the normalized text: without lifetimes, without spaces that are layout, and without the
    /// distinction between `core`, `alloc` and `std`.
    pub(super) fn normal(&self) -> String {
        let mut text = String::new();
        self.write(|_, piece| text.push_str(piece));
        text
    }

    /// Returns the parts of a path that complement an explicit name: type arguments, and the types of a
    /// trait's impl. Without them all instantiations of a generic function would share the name's entries.
    pub(super) fn type_arguments(&self) -> String {
        let mut text = String::new();
        let mut depth = 0_usize;
        self.write(|token, piece| {
            depth += usize::from(token == Mark("<"));
            if depth > 0 {
                text.push_str(piece);
            }
            depth -= usize::from(token == Mark(">") && depth > 0);
        });
        text
    }

    fn write(&self, mut put: impl FnMut(Token<'a>, &'a str)) {
        let mut before = None;
        let mut rest = &self.0[..];
        while let Some((&token, after)) = rest.split_first() {
            rest = match (token, after) {
                // The arguments of a type that has no others.
                (Mark("<"), [Lifetime, Mark(">"), after @ ..])
                // A lifetime, with the comma or space that belongs to it.
                | (Lifetime, [Mark(","), Space, after @ ..] | [Mark(",") | Space, after @ ..]) => {
                    rest = after;
                    continue;
                }
                (Lifetime, after) => {
                    rest = after;
                    continue;
                }
                (_, after) => after,
            };
            let is_root = before != Some(PATH) && after.first() == Some(&PATH);
            let piece = match token {
                Word("core" | "alloc") if is_root => "std",
                // Spaces after these separate words (`dyn Trait`, `T as Trait`); others are layout.
                Space if !matches!(before, Some(Word(_) | Mark(">" | ")" | "]"))) => continue,
                token => token.text(),
            };
            put(token, piece);
            before = Some(token);
        }
    }
}

/// Returns true if a type ends before this token, at the depth at which it began.
fn ends(token: Token<'_>) -> bool {
    matches!(token, Mark("," | ";" | ">" | ")" | "]"))
}

/// Returns each token with its depth in brackets; the brackets themselves count as inside.
fn depths<'t, 'a>(tokens: &'t [Token<'a>]) -> impl Iterator<Item = (usize, Token<'a>)> + 't {
    let mut depth = 0_usize;
    tokens.iter().map(move |&token| match token {
        Mark("<" | "(" | "[") => {
            depth += 1;
            (depth, token)
        }
        Mark(">" | ")" | "]") => {
            depth = depth.saturating_sub(1);
            (depth + 1, token)
        }
        _ => (depth, token),
    })
}

fn tokens(mut text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    while let Some(length) = token_length(text) {
        let (piece, rest) = text.split_at(length);
        tokens.push(match piece.as_bytes() {
            [b' ', ..] => Space,
            [b'\'', .., b'\''] if length > 1 => Char(piece),
            [b'\'', ..] => Lifetime,
            [b'{', _, ..] => Nameless(piece),
            _ if is_word(piece) => Word(piece),
            _ => Mark(piece),
        });
        text = rest;
    }
    tokens
}

fn is_word(piece: &str) -> bool {
    piece.starts_with(|c: char| c.is_alphanumeric() || c == '_')
}

/// Returns the length of the first token; `None` at the end.
fn token_length(text: &str) -> Option<usize> {
    let first = text.chars().next()?;
    let word = |from: usize| {
        let part = &text[from..];
        from + part
            .find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '#'))
            .unwrap_or(part.len())
    };
    Some(match first {
        '\'' => char_length(text).unwrap_or_else(|| word(1)),
        '{' if text.starts_with("{{") => text.find("}}").map_or(text.len(), |end| end + 2),
        _ if text.starts_with("::") || text.starts_with("->") => 2,
        _ if is_word(text) => word(0),
        _ => first.len_utf8(),
    })
}

/// Returns the length of a character literal at the begin of `text`: a lifetime has no second quote.
fn char_length(text: &str) -> Option<usize> {
    let inside = &text[1..];
    let length = match inside.strip_prefix('\\') {
        // The character after the backslash is never the last one, but may be a quote.
        Some(escape) => 2 + escape.chars().next()?.len_utf8() + escape.get(1..)?.find('\'')?,
        None => 1 + inside.chars().next()?.len_utf8(),
    };
    text[length..].starts_with('\'').then_some(length + 1)
}

impl<'a> Token<'a> {
    fn text(&self) -> &'a str {
        match self {
            Word(text) | Nameless(text) | Char(text) | Mark(text) => text,
            Lifetime => "",
            Space => " ",
        }
    }
}
