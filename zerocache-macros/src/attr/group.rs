//! Groups of arguments in brackets: `stale(while = "1m", background)`.

use syn::ext::IdentExt;
use syn::parse::ParseStream;
use syn::{Error, Expr, Ident, Result, Token, parenthesized};

/// A parsed group, whose items are taken out one by one.
pub(super) struct Group {
    name: Ident,
    /// The allowed items, for messages.
    known: &'static str,
    items: Vec<Item>,
}

/// A word, or a word with a value.
struct Item {
    name: Ident,
    value: Option<Expr>,
}

impl Group {
    /// Parses the brackets after `name` and their content.
    pub(super) fn parse(name: Ident, known: &'static str, input: ParseStream<'_>) -> Result<Self> {
        let content;
        parenthesized!(content in input);
        let mut items: Vec<Item> = Vec::new();
        while !content.is_empty() {
            if !content.peek(Ident::peek_any) {
                return Err(content.error(format!("`{name}(…)` takes {known}")));
            }
            let item = content.call(Ident::parse_any)?;
            if items.iter().any(|other| other.name == item) {
                return Err(Error::new(item.span(), format!("`{item}` is given twice")));
            }
            let value = match content.parse::<Option<Token![=]>>()? {
                Some(_) => Some(content.parse()?),
                None => None,
            };
            items.push(Item { name: item, value });
            if content.is_empty() {
                break;
            }
            if !content.peek(Token![,]) {
                return Err(content.error(format!("expected `,` between what is in `{name}(…)`")));
            }
            content.parse::<Token![,]>()?;
        }
        Ok(Group { name, known, items })
    }

    fn take(&mut self, name: &str) -> Option<Item> {
        let position = self.items.iter().position(|item| item.name == name)?;
        Some(self.items.remove(position))
    }

    /// Takes the value of `name = …`, if there is one.
    pub(super) fn value(&mut self, name: &str) -> Result<Option<Expr>> {
        match self.take(name) {
            None => Ok(None),
            Some(Item { value: Some(value), .. }) => Ok(Some(value)),
            Some(Item { name, value: None }) => {
                Err(Error::new(name.span(), format!("`{name}` has a value: `{name} = …`")))
            }
        }
    }

    /// Takes a word without a value, if there is one.
    pub(super) fn word(&mut self, name: &str) -> Result<Option<Ident>> {
        match self.take(name) {
            None => Ok(None),
            Some(Item { name, value: None }) => Ok(Some(name)),
            Some(Item { name, value: Some(_) }) => {
                Err(Error::new(name.span(), format!("`{name}` stands alone, without a value")))
            }
        }
    }

    /// Returns the group's name, or an error for items that are left.
    pub(super) fn finish(self) -> Result<Ident> {
        let Group { name, known, items } = self;
        match items.first() {
            None => Ok(name),
            Some(Item { name: unknown, .. }) => {
                let message = format!("unknown `{unknown}`; `{name}(…)` takes {known}");
                Err(Error::new(unknown.span(), message))
            }
        }
    }
}
