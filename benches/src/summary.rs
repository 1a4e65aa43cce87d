//! The few figures of a machine that other measurements are quoted as multiples of, in a file that they can be read from.

use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::disk::{Blocks, Caching, Figures, Scratch, Way, Writer, write};
use crate::net::bare::Bare;
use crate::net::client::{Crowd, Greeting};
use crate::net::{Cost, Priority, REPLY_BYTES, Server};

/// Connections to the bare ring, as the echo has them.
const CONNECTIONS: usize = 1_000;

/// Sockets that one message goes to: enough that what comes in does not count.
const FAN_OUT: usize = 100;

/// Bytes of a batch that holds some messages.
const BATCH_BYTES: usize = 4 << 10;

/// How long each thing is measured before it is the other's turn, and how often.
const SLICE: Duration = Duration::from_millis(500);
const ROUNDS: usize = 5;

/// What the bare machine takes.
struct Summary {
    /// A receive and a send, of a core.
    echo: Cost,
    /// A send alone.
    send: Cost,
    /// A write of [`BATCH_BYTES`] that is on the disk.
    sync: Figures,
}

/// Measures for ten seconds and writes `file`; the disk is that under `directory`.
///
/// # Errors
/// Those of the disk, and when the bare ring fails.
pub fn save(file: &Path, directory: &Path) -> io::Result<()> {
    let Summary { echo, send, sync } = Summary::measure(directory)?;
    let taken = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let text = format!(
        "{{\n  \"taken_unix_seconds\": {taken},\n  \"echo_cpu_nanos\": {:.0},\n  \"send_cpu_nanos\": {:.0},\n  \
         \"sync_p50_ms\": {:.3},\n  \"sync_p99_ms\": {:.3}\n}}\n",
        echo.nanos(),
        send.nanos(),
        sync.millis_at(50),
        sync.millis_at(99)
    );
    std::fs::write(file, &text)?;
    print!("{text}");
    Ok(())
}

impl Summary {
    fn measure(directory: &Path) -> io::Result<Self> {
        let servers =
            [Server::bare(Priority::Behind, &Bare::ECHO)?, Server::bare(Priority::Behind, &Bare::ECHO)?];
        let crowd = |server: &Server, members| {
            let (groups, each) = (CONNECTIONS / members, (1, REPLY_BYTES));
            Crowd::connect(server.address, groups, members, each, Greeting::Group)
        };
        let (mut alone, mut together) = (crowd(&servers[0], 1)?, crowd(&servers[1], FAN_OUT)?);
        let file = Scratch::new(directory, "floor-summary.measured", Blocks::Zeroed, Caching::Direct)?;
        let (mut echo, mut send, mut sync) = (Cost::default(), Cost::default(), Figures::default());
        for _ in 0..ROUNDS {
            echo.add(&Cost::of(&servers[..1], &mut alone, SLICE, 1)?);
            send.add(&Cost::of(&servers[1..], &mut together, SLICE, FAN_OUT as u64)?);
            let mut writer = Writer::new(&[&file], Way::Through)?;
            write(&mut writer, &mut sync, BATCH_BYTES, SLICE, &mut 0)?;
        }
        Ok(Self { echo, send, sync })
    }
}
