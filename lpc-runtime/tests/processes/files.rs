//! Files and sealed memory, passed by their descriptors, and on.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use lpc::Shared;

use crate::process::{PORT, Process, other, say, variable};
use crate::service::{DRIVERS, Driver};
use crate::vault::{AnyVault, Knobs, Vault, in_use, marks, memory, pairs, place, sealed};

const GIB: u64 = 1 << 30;

/// Between two marks.
const STEP: u64 = GIB / 64;

/// Far less than a gigabyte.
const LITTLE: u64 = 64 << 20;

/// A sparse file of 1 GiB with marks.
fn marked(path: &std::path::Path) -> File {
    let file = File::options().read(true).write(true).create_new(true).open(path).unwrap();
    file.set_len(GIB).unwrap();
    for (mark, at) in (1..).zip((0..GIB).step_by(STEP as usize)) {
        file.write_all_at(&[mark], at).unwrap();
    }
    file
}

fn expected() -> Vec<u8> {
    (1..=64).collect()
}

#[test]
fn a_file_of_1_gib_is_read_by_its_receiver_without_a_copy() {
    for (client, server) in pairs() {
        for is_trusting in [false, true] {
            let vault = Vault::start(server, Knobs { is_trusting, ..Knobs::default() });
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("file");
            marked(&path);
            let before = (memory(vault.id(), "VmHWM"), in_use(vault.id()));
            let mut command = other("pass_file", client);
            let client = Process::start(command.env(PORT, vault.port()).env("LPC_TEST_FILE", &path));
            assert_eq!(client.rest(), ["kept", "ended"]);
            // Its sender has ended, and it has no name any more.
            drop(directory);
            let reader = vault.client(Driver::Blocking);
            assert_eq!(reader.marks(STEP, true).unwrap(), expected(), "piece by piece");
            if is_trusting {
                assert_eq!(reader.marks(STEP, false).unwrap(), expected(), "in place");
            } else {
                let error = reader.marks(STEP, false).unwrap_err();
                assert!(error.to_string().contains("`read_at`"), "{error}");
            }
            let grown = memory(vault.id(), "VmHWM") - before.0;
            assert!(grown < LITTLE, "the server grew by {} MiB", grown >> 20);
            assert!(in_use(vault.id()) < before.1 + LITTLE);
        }
    }
}

/// Role: passes a file, and takes little memory for it.
pub fn pass_file(driver: Driver) -> lpc::Result<()> {
    let id = std::process::id();
    let client = AnyVault::connect(driver, &variable(PORT))?;
    let before = memory(id, "VmHWM");
    let file = File::open(variable("LPC_TEST_FILE"))?;
    let bytes = Shared::from_file(&file, ..)?;
    assert_eq!(marks(&bytes, STEP, true)?, expected());
    client.keep(bytes)?;
    let grown = memory(id, "VmHWM") - before;
    assert!(grown < LITTLE, "the client grew by {} MiB", grown >> 20);
    say("kept");
    Ok(())
}

#[test]
fn a_range_of_a_file_is_what_its_receiver_gets_wherever_it_begins() {
    let file = tempfile::tempfile().unwrap();
    let content: Vec<u8> = (0..30_000_u32).map(|at| (at % 251) as u8).collect();
    file.write_all_at(&content, 0).unwrap();
    for (client, server) in pairs() {
        for is_trusting in [false, true] {
            let vault = Vault::start(server, Knobs { is_trusting, ..Knobs::default() });
            let client = vault.client(client);
            for range in [0..1, 1..2, 4095..4097, 4096..8192, 5000..30_000, 29_999..30_000, 0..30_000] {
                let bytes = Shared::from_file(&file, range.start as u64..range.end as u64).unwrap();
                let expected: u64 = content[range.clone()].iter().map(|byte| u64::from(*byte)).sum();
                assert_eq!(client.sum(bytes.clone()).unwrap(), expected, "{range:?}");
                client.keep(bytes).unwrap();
                assert_eq!(client.marks(1, true).unwrap(), content[range.clone()], "{range:?}");
                assert_eq!(client.marks(1, false).unwrap(), content[range.clone()], "{range:?}");
                client.forget().unwrap();
            }
            assert!(Shared::from_file(&file, 0..30_001).is_err());
        }
    }
}

/// By which flags a process has a file open, each time it has.
fn flags_of(process: u32, file: &File) -> Vec<u32> {
    let inode = |path: &Path| std::fs::metadata(path).ok().map(|metadata| metadata.ino());
    let wanted = file.metadata().unwrap().ino();
    let all = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap().flatten();
    let its = all.filter(|entry| inode(&entry.path()) == Some(wanted));
    let flags = its.map(|entry| {
        let number = entry.file_name().into_string().unwrap();
        let info = std::fs::read_to_string(format!("/proc/{process}/fdinfo/{number}")).unwrap();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
        u32::from_str_radix(flags.trim(), 8).unwrap()
    });
    flags.collect()
}

#[test]
fn whoever_gets_a_file_cannot_write_to_it_and_who_gets_a_copy_has_no_file() {
    const WAYS_OF_ACCESS: u32 = 0o3;
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(b"a password is hunter2, and more", 0).unwrap();
    for (client, server) in pairs() {
        let vault = Vault::start(server, Knobs::default());
        let client = vault.client(client);
        client.keep(Shared::from_file(&file, 14..21).unwrap()).unwrap();
        assert_eq!(client.marks(1, true).unwrap(), b"hunter2");
        let flags = flags_of(vault.id(), &file);
        assert!(!flags.is_empty() && flags.iter().all(|flags| flags & WAYS_OF_ACCESS == 0), "{flags:?}");
        client.forget().unwrap();

        let vault = Vault::start(server, Knobs::default());
        let client = vault.client(Driver::Blocking);
        let copy = Shared::copy_of_file(&file, 14..21).unwrap();
        assert!(copy.is_shared());
        client.keep(copy).unwrap();
        assert_eq!(client.marks(1, false).unwrap(), b"hunter2");
        assert_eq!(flags_of(vault.id(), &file), []);
        assert_eq!(client.sum(Shared::copy_of_file(&file, 5..5).unwrap()).unwrap(), 0);
        let too_long = Shared::copy_of_file(&file, ..1000).unwrap_err();
        assert_eq!(too_long.kind(), std::io::ErrorKind::UnexpectedEof);
    }
}

#[test]
fn an_empty_range_of_a_file_is_passed_like_any_other() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(100).unwrap();
    for (client, server) in pairs() {
        let vault = Vault::start(server, Knobs::default());
        let client = vault.client(client);
        for at in [0, 50, 100] {
            assert_eq!(client.sum(Shared::from_file(&file, at..at).unwrap()).unwrap(), 0);
        }
    }
}

/// Passed on by who does not trust its sender, to one that trusts nobody either.
#[test]
fn sealed_memory_that_is_passed_on_is_the_same_memory_in_all_three_processes() {
    for (first, second) in pairs() {
        let (middle, last) = (Vault::start(first, Knobs::default()), Vault::start(second, Knobs::default()));
        for client in DRIVERS {
            let bytes = sealed(3 << 20, 7);
            let here = place(&bytes);
            assert!(here.ends_with("/memfd:lpc"), "{here}");
            let client = middle.client(client);
            let places = client.places(last.port(), bytes.clone()).unwrap();
            assert_eq!(places, (here.clone(), here));
        }
    }
}

#[test]
fn a_file_that_is_passed_on_is_read_in_place_by_each_that_trusts() {
    let trusting = Knobs { is_trusting: true, ..Knobs::default() };
    for (first, second) in pairs() {
        let (middle, last) = (Vault::start(first, trusting), Vault::start(second, trusting));
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&vec![5; 100_000], 0).unwrap();
        let inode = std::os::unix::fs::MetadataExt::ino(&file.metadata().unwrap());
        let client = middle.client(Driver::Blocking);
        let bytes = Shared::from_file(&file, 5000..).unwrap();
        let (there, beyond) = client.places(last.port(), bytes).unwrap();
        for place in [there, beyond] {
            assert!(place.starts_with(&format!("{inode} ")), "{place}");
        }
    }
}

/// A loan of the pool is no object: who passes it on copies it, and both have it as long as they like.
#[test]
fn a_loan_that_is_passed_on_is_right_in_the_third_process() {
    for (first, second) in pairs() {
        for is_trusting in [false, true] {
            let knobs = Knobs { is_trusting, ..Knobs::default() };
            let (middle, last) = (Vault::start(first, knobs), Vault::start(second, knobs));
            let client = middle.client(first);
            let loan = client.loan(100_000, 4).unwrap();
            let (there, beyond) = client.places(last.port(), loan).unwrap();
            assert_eq!(there.contains("memfd:lpc"), is_trusting, "{there}");
            assert_eq!(beyond.contains("memfd:lpc"), is_trusting, "{beyond}");
            assert!(!is_trusting || there != beyond);
        }
    }
}
