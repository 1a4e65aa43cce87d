//! The dice that are set apart from those of everything else, so that what one of them decides leaves all other worlds as they were; and the
//! clients that throw them.

use protocol::ids::UserId;
use protocol::limits::SMALL_GROUP_MEMBERS_MAX;
use protocol::upgrade::Form;

use crate::Rng;
use crate::client::Client;

/// Sets the dice of revocations apart from those of everything else.
pub(crate) const REVOKING: u64 = 0x7265_766f_6b65;

/// And those of amendments, each client's its own.
pub(crate) const AMENDING: u64 = 0x616d_656e_6400;

/// And those of erasures.
pub(crate) const ERASING: u64 = 0x0065_7261_7365;

/// And those of who looks at what, each client's its own.
pub(crate) const VIEWING: u64 = 0x0076_6965_7769_6e67;

/// And those of who asks for its list, each client's its own.
pub(crate) const LISTING: u64 = 0x006c_6973_7469_6e67;

/// And those of who sets what, each client's its own.
pub(crate) const SETTING: u64 = 0x0073_6574_7469_6e67;

/// And those of who is called, each client's its own and the file's.
pub(crate) const CALLING: u64 = 0x0063_616c_6c69_6e67;

/// And those of who sets how much is kept, each client's its own and the day's.
pub(crate) const KEEPING: u64 = 0x6b65_6570_696e_6700;

/// And those of who hands out roles, each client's its own.
pub(crate) const GOVERNING: u64 = 0x676f_7665_726e;

/// And those of who says more than a text, each client's its own.
pub(crate) const ELABORATING: u64 = 0x656c_6162;

/// And those of who is invisible, each client's its own.
pub(crate) const HIDING: u64 = 0x6869_6469_6e67;

/// And those of who stays away for a while when the node has ended.
pub(crate) const STAYING: u64 = 0x7374_6179;

/// And those of how large a group is that fans out on read.
pub(crate) const GROWING: u64 = 0x6772_6f77;

/// And those of who searches, each client's its own, and of the index.
pub(crate) const SEARCHING: u64 = 0x7365_6172_6368;

/// And those of a disk that is full.
pub(crate) const FILLING: u64 = 0x6675_6c6c;

/// And those of the one that stops reading.
pub(crate) const DEAFNESS: u64 = 0x6465_6166;

/// In some worlds a group of a few fans out on read, and members come and go across that.
pub(crate) fn small_group_members_max(seed: u64) -> usize {
    if matches!(seed % 16, 3 | 5 | 8 | 11 | 13 | 15) {
        Rng::new(seed ^ GROWING).between(2, 6) as usize
    } else {
        SMALL_GROUP_MEMBERS_MAX
    }
}

/// In some worlds users are called, and those take longer: few of them, none of which has failed once.
pub(crate) fn calls(seed: u64) -> bool {
    matches!(seed % 16, 3 | 5 | 13)
}

/// In some worlds it is set how much of a conversation is kept: in some in which something is erased, and in some in which nothing is; none has
/// failed once.
pub(crate) fn keeps(seed: u64) -> bool {
    matches!(seed % 32, 3 | 15 | 29)
}

/// In some worlds users search: in most kinds none of which has failed once, and in some in which messages are kept for a while only. A search
/// takes the place of something else, so one kind (13) goes on as it was, for what is rare.
pub(crate) fn searches(seed: u64) -> bool {
    matches!(seed % 16, 3 | 5 | 8 | 15) || seed % 64 == 30
}

/// In some worlds roles are handed out: in some with nothing else that is set apart, and in some with most of it.
fn governs(seed: u64) -> bool {
    matches!(seed % 16, 3 | 5) || matches!(seed % 64, 7 | 15 | 23 | 39)
}

/// In some worlds messages are more than texts, likewise: also where they are amended, erased, not kept, or who is called of them.
fn elaborates(seed: u64) -> bool {
    matches!(seed % 16, 3 | 8 | 13) || matches!(seed % 64, 5 | 7 | 39)
}

/// One to two devices of each user.
pub(crate) fn clients_of(
    users: &[UserId],
    are_patient: bool,
    amending: Option<u64>,
    rng: &mut Rng,
) -> Vec<Client> {
    let mut clients = Vec::new();
    for user in users {
        for device in 0..rng.between(1, 3) {
            // Some have to show a new token again and again.
            let token_seconds = *rng.pick(&[86_400, 86_400, 86_400, 3, 2, 1]);
            let form = if rng.one_in(2) { Form::Json } else { Form::Binary };
            // Most name their messages by the server's time; some by a clock of their own that is an hour off.
            let skew_ms = *rng.pick(&[0, 0, 0, 0, -3_600_000, 3_600_000]);
            let device = format!("device-{device}");
            let mut client = Client::new(user.clone(), &device, token_seconds, form, skew_ms);
            client.is_patient = are_patient;
            client.amending = amending.map(|seed| Rng::new(seed ^ clients.len() as u64));
            clients.push(client);
        }
    }
    clients
}

/// What clients do beside what they send, each by dice of its own, in worlds none of which has failed once.
pub(crate) fn give_dice(seed: u64, clients: &mut [Client]) {
    let looks = matches!(seed % 16, 3 | 5 | 8 | 11 | 13 | 15);
    let sets = matches!(seed % 16, 3 | 5 | 8 | 13 | 15);
    let hides = matches!(seed % 16, 3 | 8 | 13);
    for (client, number) in clients.iter_mut().zip(0..) {
        client.viewing.dice = looks.then(|| Rng::new(seed ^ VIEWING ^ number));
        client.listing.dice = looks.then(|| Rng::new(seed ^ LISTING ^ number));
        client.setting.dice = sets.then(|| Rng::new(seed ^ SETTING ^ number));
        client.keeping = keeps(seed).then(|| Rng::new(seed ^ KEEPING ^ (number + 1)));
        client.governing = governs(seed).then(|| Rng::new(seed ^ GOVERNING ^ (number + 1)));
        client.elaborating = elaborates(seed).then(|| Rng::new(seed ^ ELABORATING ^ (number + 1)));
        client.hiding.dice = hides.then(|| Rng::new(seed ^ HIDING ^ number));
        client.searching.dice = searches(seed).then(|| Rng::new(seed ^ SEARCHING ^ (number + 1)));
        client.registering.dice = calls(seed).then(|| Rng::new(seed ^ CALLING ^ (number + 1)));
    }
}
