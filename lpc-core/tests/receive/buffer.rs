//! What has arrived in part, and the memory that it takes.

use super::*;

#[test]
fn a_connection_may_end_between_frames_and_nowhere_else() {
    for role in ROLES {
        let bytes = raw(bodied(role), 0, 1, b"body");
        let mut driver = Driver::new(role, limits());
        assert!(driver.receiver.is_drained());
        for byte in &bytes[..bytes.len() - 1] {
            driver.feed(&[*byte], &[]).unwrap();
            assert!(!driver.receiver.is_drained() && !driver.receiver.has_next());
        }
        driver.feed(&bytes[bytes.len() - 1..], &[]).unwrap();
        assert!(driver.receiver.is_drained());
        assert_eq!(driver.seen.len(), 1);
    }
}

#[test]
fn what_is_announced_takes_no_memory_until_it_arrives() {
    for (role, flags) in ROLES.into_iter().flat_map(|role| [(role, 0), (role, LOANS)]) {
        let mut driver = Driver::new(role, Limits { max_message: u64::MAX, ..limits() });
        driver.feed(&header(u32::MAX, bodied(role), flags, 0, 1), &[]).unwrap();
        assert!(driver.receiver.space().len() <= CONSTANT);
        // `feed` checks it for each of these.
        for _ in 0..200 {
            driver.feed(&[7; 10_000], &[]).unwrap();
        }
        assert!(driver.seen.is_empty());
    }
}

#[test]
fn the_memory_of_a_large_frame_is_given_back() {
    for role in ROLES {
        let mut driver = Driver::new(role, limits());
        driver.feed(&raw(bodied(role), 0, 1, &vec![1; 1 << 20]), &[]).unwrap();
        assert_eq!(driver.seen.len(), 1);
        assert!(driver.receiver.space().len() <= CONSTANT);
        driver.feed(&raw(bodied(role), 0, 2, b"next"), &[]).unwrap();
        assert_eq!(driver.seen.len(), 2);
    }
}
