//! Collects the fields of a message and builds the response from them.

use alloc::{borrow::ToOwned, boxed::Box, string::String, vec::Vec};

use bytes::Bytes;

use super::{
    Response, TEXT_BYTES_MAX,
    tags::{kind, tag},
};
use crate::{
    condition::TakenItem,
    limits::{METADATA_BYTES_MAX, VALUE_BYTES_WIRE_MAX},
    locate::NodeCopies,
    store::{CopyCursor, KeyVersion},
    ttl::Ttl,
    version::{Incarnation, Version},
    wire::{
        changes::{ChangeRow, KeyChange, read_changes, read_rows},
        datagram::CONTENT_BYTES_MAX,
        field::{DecodeError, Field},
        hello::{Hello, NodeState},
        locate::NODES_MAX,
        outcome::{Receipt, Refusal, RefusalCode, Status, Written},
        repair::{
            Digests, FetchedItem, ITEMS_MAX, SELECTORS_MAX, cursor_from, read_lineage,
            read_numbers, read_sync_ages, read_versions,
        },
        request::REPLICATED_RECORDS_MAX,
    },
};

/// The fields of any response. The kind decides later which of them are used.
#[derive(Default)]
pub(super) struct Body {
    hello: Option<Hello>,
    incarnation: Option<Incarnation>,
    state: u64,
    view: u64,
    version: Option<Version>,
    value: Option<Bytes>,
    metadata: Bytes,
    remaining_ms: u64,
    deleted: Option<Version>,
    warming: bool,
    known: u64,
    status: Option<Status>,
    replicas: [u32; 2],
    receipts: Vec<Receipt>,
    code: u64,
    text: String,
    wall_ms: u64,
    value_bytes_max: u64,
    gossip: Bytes,
    digests: Digests,
    versions: Vec<KeyVersion>,
    covered: u64,
    items: Vec<FetchedItem>,
    more: Option<CopyCursor>,
    tick: u32,
    next: u64,
    lost: bool,
    changes: Vec<KeyChange>,
    purges: Vec<KeyChange>,
    rows: Vec<ChangeRow>,
    located: Vec<NodeCopies>,
}

impl Body {
    pub(super) fn set(&mut self, field: &Field<'_>) -> Result<(), DecodeError> {
        let count = |field: &Field| u32::try_from(field.number()?).map_err(|_| field.invalid());
        match field.tag {
            tag::HELLO => self.hello = Some(Hello::read(field.reader())?),
            tag::INCARNATION => self.incarnation = Some(Incarnation(field.number()?)),
            tag::STATE => self.state = field.number()?,
            tag::VIEW => self.view = field.number()?,
            tag::VERSION => self.version = Some(Version::from_bytes(field.array()?)),
            tag::VALUE => self.value = Some(field.bounded(VALUE_BYTES_WIRE_MAX)?),
            tag::METADATA => self.metadata = field.bounded(METADATA_BYTES_MAX)?,
            tag::REMAINING_MS => {
                self.remaining_ms = field.number()?.min(Ttl::MAX.as_millis());
            }
            tag::DELETED => self.deleted = Some(Version::from_bytes(field.array()?)),
            tag::WARMING => self.warming = field.number()? != 0,
            tag::KNOWN => self.known = field.number()?,
            tag::STATUS => self.status = Some(Status::from_field(field)?),
            tag::REPLICAS => self.replicas[0] = count(field)?,
            tag::REPLICAS_WANTED => self.replicas[1] = count(field)?,
            tag::RECEIPT if self.receipts.len() >= REPLICATED_RECORDS_MAX => {
                return Err(DecodeError::TooMany(field.tag));
            }
            tag::RECEIPT if field.content.is_empty() => self.receipts.push(Receipt::Refused),
            tag::RECEIPT => {
                self.receipts.push(Receipt::Holds(Version::from_bytes(field.array()?)));
            }
            tag::CODE => self.code = field.number()?,
            tag::TEXT => self.text = field.text(TEXT_BYTES_MAX)?.to_owned(),
            tag::GOSSIP => self.gossip = field.bounded(CONTENT_BYTES_MAX)?,
            tag::WALL_MS => self.wall_ms = field.wall_ms()?,
            tag::VALUE_BYTES_MAX => self.value_bytes_max = field.number()?,
            tag::FROM_SECOND => self.digests.from_second = field.number()?,
            tag::DIGESTS => self.digests.digests = read_numbers(field, 64 * SELECTORS_MAX)?,
            tag::SYNC_AGES => self.digests.sync_ages = read_sync_ages(field)?,
            tag::LIVED_MS => self.digests.lived_ms = field.number()?,
            tag::LINEAGE => self.digests.lineage = Some(read_lineage(field)?),
            tag::PLACED => self.digests.placed = field.number()?,
            tag::VERSIONS => self.versions = read_versions(field)?,
            tag::COVERED => self.covered = field.number()?,
            tag::NEXT => self.next = field.number()?,
            tag::LOST => self.lost = field.number()? != 0,
            tag::CHANGES => self.changes = read_changes(field)?,
            tag::PURGES => self.purges = read_changes(field)?,
            tag::CHANGE_ROWS => self.rows = read_rows(field)?,
            tag::NODE_COPIES if self.located.len() < NODES_MAX => {
                self.located.push(NodeCopies::read(field.reader())?);
            }
            tag::NODE_COPIES => return Err(DecodeError::TooMany(field.tag)),
            tag::ITEM if self.items.len() < ITEMS_MAX => {
                self.items.push(FetchedItem::read(field.reader())?);
            }
            tag::ITEM => return Err(DecodeError::TooMany(field.tag)),
            tag::MORE => self.more = Some(cursor_from(field.number()?)),
            tag::TICK => {
                self.tick = u32::try_from(field.number()?).map_err(|_| field.invalid())?;
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) fn into_response(self, kind: u64) -> Result<Response, DecodeError> {
        Ok(match kind {
            kind::HELLO => {
                Response::Hello(Box::new(self.hello.ok_or(DecodeError::Missing(tag::HELLO))?))
            }
            kind::PONG => Response::Pong {
                incarnation: self.incarnation.ok_or(DecodeError::Missing(tag::INCARNATION))?,
                state: NodeState::from_number(self.state),
                view: self.view,
                wall_ms: self.wall_ms,
            },
            kind::DONE => Response::Done,
            kind::NOT_FOUND => Response::NotFound { warming: self.warming, known: self.known },
            kind::WRITTEN => Response::Written(Written {
                status: self.status.ok_or(DecodeError::Missing(tag::STATUS))?,
                replicas: self.replicas[0],
                replicas_wanted: self.replicas[1],
                version: self.version,
            }),
            kind::NOT_MET => Response::NotMet { current: self.version },
            kind::TAKEN => Response::Taken(Box::new(TakenItem {
                value: self.value.ok_or(DecodeError::Missing(tag::VALUE))?,
                metadata: self.metadata,
                version: self.version.ok_or(DecodeError::Missing(tag::VERSION))?,
                remaining_ms: self.remaining_ms,
                deleted: self.deleted.ok_or(DecodeError::Missing(tag::DELETED))?,
            })),
            kind::REPLICATED => Response::Replicated(self.receipts),
            kind::LEASE_GRANTED => Response::LeaseGranted {
                token: self.version.ok_or(DecodeError::Missing(tag::VERSION))?,
            },
            kind::LEASE_HELD => Response::LeaseHeld,
            kind::UNCONFIRMED => Response::Unconfirmed,
            kind::CHANGES => {
                let Self { next, lost, changes, purges, .. } = self;
                Response::Changes { next, lost, changes, purges }
            }
            kind::CHANGE_ROWS => {
                Response::ChangeRows { next: self.next, lost: self.lost, rows: self.rows }
            }
            kind::LOCATED => Response::Located(self.located),
            kind::GOSSIP => Response::Gossip(self.gossip),
            kind::REFUSED => Response::Refused(Refusal {
                code: RefusalCode::from_number(self.code),
                text: self.text,
                wall_ms: self.wall_ms,
                value_bytes_max: self.value_bytes_max,
            }),
            kind::DIGESTS => Response::Digests(self.digests),
            kind::VERSIONS => Response::Versions { versions: self.versions, covered: self.covered },
            kind::ITEMS => Response::Items {
                items: self.items,
                covered: self.covered,
                more: self.more,
                tick: self.tick,
                from_second: self.digests.from_second,
            },
            unknown => return Err(DecodeError::UnknownKind(unknown)),
        })
    }
}
