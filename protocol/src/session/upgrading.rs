//! Before the first frame: the header of a proxy, where there is one, and the head of the upgrade, at either side.
//!
//! What has come of a head is held until its end has, up to a limit; what stands behind it is left for the next call. A head that is not
//! taken ends the session with an HTTP answer.

use super::{End, Handled, Input, Phase, Session};
use crate::{
    limits,
    proxy::read_proxy_header,
    upgrade::{HeadScan, HttpRefusal, UpgradePolicy, check_response, parse_head},
    ws::Role,
};

/// The head being received.
#[derive(Default)]
pub(super) struct Upgrading {
    pub(super) head: Vec<u8>,
    pub(super) scan: HeadScan,
    /// Client: the key the response has to answer.
    pub(super) key: String,
}

impl Session {
    /// What is behind the header stays where it is, for the next call.
    pub(super) fn handle_proxy<'a>(&'a mut self, input: &mut [u8]) -> Result<Handled<'a>, End> {
        let mut upgrading = self.upgrading.take().unwrap_or_default();
        let held = upgrading.head.len();
        let fresh = input.len().min(limits::PROXY_HEADER_BYTES_MAX - held);
        upgrading.head.extend_from_slice(&input[..fresh]);
        match read_proxy_header(&upgrading.head) {
            Ok(Some(header)) => {
                self.phase = Phase::Upgrading;
                // The header ends in the fresh bytes, or it would have been found before.
                Ok(Handled { consumed: header.bytes - held, input: Some(Input::Proxied(header.source)) })
            }
            Ok(None) => {
                self.upgrading = (!upgrading.head.is_empty()).then_some(upgrading);
                Ok(Handled { consumed: fresh, input: None })
            }
            Err(refusal) => {
                self.refuse(refusal);
                Err(End::NotProxied(refusal))
            }
        }
    }

    pub(super) fn handle_head<'a>(
        &'a mut self,
        policy: &UpgradePolicy,
        input: &mut [u8],
    ) -> Result<Handled<'a>, End> {
        let mut upgrading = self.upgrading.take().unwrap_or_default();
        let held = upgrading.head.len();
        // One byte beyond the limit is enough to see that it is passed.
        let fresh = input.len().min(limits::HTTP_HEAD_BYTES_MAX + 1 - held);
        upgrading.head.extend_from_slice(&input[..fresh]);
        let end = match upgrading.scan.find_end(&upgrading.head) {
            Ok(Some(end)) => end,
            Ok(None) => {
                let waits = !upgrading.head.is_empty() || self.role == Role::Client;
                self.upgrading = waits.then_some(upgrading);
                return Ok(Handled { consumed: fresh, input: None });
            }
            Err(refusal) => return Err(self.refused(refusal)),
        };
        let head = &upgrading.head[..end];
        let taken = match self.role {
            Role::Client => check_response(head, &upgrading.key, self.form).map(|()| Input::Connected),
            Role::Server => parse_head(head, policy).map(|upgrade| {
                self.form = upgrade.form;
                self.pending().http = upgrade.response();
                Input::Upgraded(Box::new(upgrade))
            }),
        };
        match taken {
            Ok(taken) => {
                self.phase = Phase::Open;
                // The head ends in the fresh bytes, or it would have been found before.
                Ok(Handled { consumed: end - held, input: Some(taken) })
            }
            Err(refusal) => Err(self.refused(refusal)),
        }
    }

    fn refused(&mut self, refusal: HttpRefusal) -> End {
        self.refuse(refusal);
        End::Refused(refusal)
    }
}
