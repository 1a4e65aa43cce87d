//! Files that hold a secret: read only when nobody else could have, made so that nobody else can.
//!
//! Permissions are judged on the open file, not on its name, so what was checked is what is read.
//!
//! Invariant: a secret that this process makes is on disk, whole, before anything is signed with it, and
//! an existing one is never written over.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;

use super::KeyError;

/// No key or token is near this; a larger file is the wrong file.
pub(super) const FILE_BYTES_MAX: u64 = 64 * 1024;
/// Of a secret that we make, before it is written in hexadecimal.
const SECRET_BYTES: usize = 32;

/// Any permission of the group or of others.
const SHARED_BITS: u32 = 0o077;
/// Write permission of the group or of others.
const SHARED_WRITE_BITS: u32 = 0o022;

/// Reads a secret, without its line end. Refused unless it is for its owner alone.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, KeyError> {
    read_if(path, SHARED_BITS)
}

/// Reads a public key. Refused when others could have replaced it.
pub(super) fn read_public(path: &Path) -> Result<Vec<u8>, KeyError> {
    read_if(path, SHARED_WRITE_BITS)
}

/// Reads a secret, or makes it when there is none.
pub(super) fn read_or_create(path: &Path) -> Result<Vec<u8>, KeyError> {
    match read(path) {
        Err(KeyError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
            create(path).map_err(|error| fault(path, "made", error))?;
            // Another process may have been faster: what counts is what stands there now.
            read(path)
        }
        other => other,
    }
}

fn read_if(path: &Path, forbidden_bits: u32) -> Result<Vec<u8>, KeyError> {
    let (content, metadata) = open(path).map_err(|error| fault(path, "read", error))?;
    let process = rustix::process::geteuid().as_raw();
    let path = path.to_owned();
    let owner = metadata.uid();
    if owner != process && owner != 0 {
        return Err(KeyError::Owner { path, owner, process });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & forbidden_bits != 0 {
        return Err(KeyError::Exposed { path, mode });
    }
    Ok(content)
}

fn open(path: &Path) -> io::Result<(Vec<u8>, fs::Metadata)> {
    // Without waiting, so that a pipe in place of a key refuses the start instead of hanging it.
    let flags = OFlags::NONBLOCK.bits() as i32;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    if metadata.len() > FILE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is larger than any key"));
    }
    let mut content = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut content)?;
    while content.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
        content.pop();
    }
    Ok((content, metadata))
}

/// Makes the file with 32 random bytes in hexadecimal, or leaves the one that is there.
fn create(path: &Path) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    // A name of its own: a process that died half-way is in nobody's way.
    let temporary = with_suffix(path, &format!(".new.{}", hex(&random::<4>()?)));
    let written = write_new(&temporary).and_then(|()| {
        // A link, because unlike a rename it never replaces a key that tokens are already signed with.
        match fs::hard_link(&temporary, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    });
    // The first failure is the one to tell.
    let removed = fs::remove_file(&temporary);
    written.and(removed)?;
    File::open(directory)?.sync_all()
}

fn write_new(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let secret = hex(&random::<SECRET_BYTES>()?);
    file.write_all(secret.as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()
}

fn random<const BYTES: usize>() -> io::Result<[u8; BYTES]> {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn fault(path: &Path, action: &'static str, error: io::Error) -> KeyError {
    KeyError::Io { path: path.to_owned(), action, error }
}
