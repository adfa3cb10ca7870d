//! The groups of arguments about the near cache, leases, stale values and negative caching.

use syn::ext::IdentExt;
use syn::parse::ParseStream;
use syn::{Error, Expr, Ident, Result};

use super::group::Group;

const NEAR: &str = "`age = …` and `outage = …`";
const LEASE: &str = "`region` or `all`, `life = …` and `wait = …`";
const STALE: &str = "`while = …`, `if_error = …` and `background`";
const NEGATIVE: &str = "`none = …`, and `err = …` with `ttl = …`";

/// `lease = region`, `lease = all`, `lease(region, life = …, wait = …)`.
pub(crate) struct Lease {
    /// `region` or `all`.
    pub(crate) scope: Ident,
    pub(crate) life: Option<Expr>,
    pub(crate) wait: Option<Expr>,
}

impl Lease {
    /// Parses the rest after `lease =`.
    pub(super) fn assigned(input: ParseStream<'_>) -> Result<Self> {
        let span = input.span();
        let wrong = || Error::new(span, "`lease` is `region` or `all`");
        let scope = input.call(Ident::parse_any).map_err(|_| wrong())?;
        if scope != "region" && scope != "all" {
            return Err(wrong());
        }
        Ok(Lease { scope, life: None, wait: None })
    }

    /// Parses the rest after `lease`.
    pub(super) fn listed(name: Ident, input: ParseStream<'_>) -> Result<Self> {
        let mut group = Group::parse(name, LEASE, input)?;
        let (region, all) = (group.word("region")?, group.word("all")?);
        let (life, wait) = (group.value("life")?, group.value("wait")?);
        let name = group.finish()?;
        let scope = match (region, all) {
            (Some(scope), None) | (None, Some(scope)) => scope,
            (Some(_), Some(all)) => {
                return Err(Error::new(all.span(), "`all` holds the caller's region too"));
            }
            (None, None) => {
                let message = "say for whom there is one computation: `lease(region, …)` or \
                               `lease(all, …)`";
                return Err(Error::new(name.span(), message));
            }
        };
        Ok(Lease { scope, life, wait })
    }
}

/// `near`, `near = …`, `near(age = …, outage = …)`.
#[derive(Default)]
pub(crate) struct Near {
    pub(crate) age: Option<Expr>,
    pub(crate) outage: Option<Expr>,
}

impl Near {
    /// Parses the rest after `near`.
    pub(super) fn listed(name: Ident, input: ParseStream<'_>) -> Result<Self> {
        let mut group = Group::parse(name, NEAR, input)?;
        let (age, outage) = (group.value("age")?, group.value("outage")?);
        let name = group.finish()?;
        if age.is_none() && outage.is_none() {
            let message = format!("an empty group; `near(…)` takes {NEAR}");
            return Err(Error::new(name.span(), message));
        }
        Ok(Near { age, outage })
    }
}

/// `stale(while = …, if_error = …, background)`.
pub(crate) struct Stale {
    pub(crate) serve_while: Option<Expr>,
    pub(crate) if_error: Option<Expr>,
    pub(crate) background: Option<Ident>,
}

impl Stale {
    pub(super) fn listed(name: Ident, input: ParseStream<'_>) -> Result<Self> {
        let mut group = Group::parse(name, STALE, input)?;
        let (serve_while, if_error) = (group.value("while")?, group.value("if_error")?);
        let background = group.word("background")?;
        let name = group.finish()?;
        if let (None, Some(background)) = (&serve_while, &background) {
            let message = "`background` refreshes what `while = …` lets others have meanwhile; \
                           give that too";
            return Err(Error::new(background.span(), message));
        }
        if serve_while.is_none() && if_error.is_none() {
            let message = format!("an empty group; `stale(…)` takes {STALE}");
            return Err(Error::new(name.span(), message));
        }
        Ok(Stale { serve_while, if_error, background })
    }
}

/// `negative(none = …, err = …, ttl = …)`.
pub(crate) struct Negative {
    /// The lifetime of a `None`.
    pub(crate) none: Option<Expr>,
    /// The condition on stored errors, and their lifetime.
    pub(crate) err: Option<(Expr, Expr)>,
}

impl Negative {
    pub(super) fn listed(name: Ident, input: ParseStream<'_>) -> Result<Self> {
        let mut group = Group::parse(name, NEGATIVE, input)?;
        let (none, err, ttl) = (group.value("none")?, group.value("err")?, group.value("ttl")?);
        let name = group.finish()?;
        let err = match (err, ttl) {
            (Some(err), Some(ttl)) => Some((err, ttl)),
            (Some(err), None) => {
                let message =
                    "say how long these errors are kept: `negative(err = …, ttl = \"5s\")`";
                return Err(Error::new_spanned(err, message));
            }
            (None, Some(ttl)) => {
                let message = "`ttl` is how long the errors of `err = …` are kept; a `None` has \
                               `none = …`";
                return Err(Error::new_spanned(ttl, message));
            }
            (None, None) => None,
        };
        if none.is_none() && err.is_none() {
            let message = format!("an empty group; `negative(…)` takes {NEGATIVE}");
            return Err(Error::new(name.span(), message));
        }
        Ok(Negative { none, err })
    }
}
