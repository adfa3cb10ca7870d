//! For the fuzz targets only: what is believed of an mDNS record.

use mdns_sd::ResolvedService;

use super::{Proposal, record};

/// The proposal that a member of `cluster` makes of a resolved record, if it takes it.
pub fn proposal(service: &ResolvedService, cluster: &str) -> Option<Proposal> {
    record::proposal(service, cluster).ok()
}
