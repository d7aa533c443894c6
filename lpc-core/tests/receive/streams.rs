//! Streams of chance, whole and damaged, in pieces of any length.

use super::*;

/// One frame of a valid stream.
#[derive(Clone, Debug)]
enum Part {
    Inline { call: u64, method: u16, len: usize, loans: Vec<Place> },
    Mapped { call: u64, method: u16, place: Place, loans: Vec<Place> },
    Failure { call: u64, text: String },
    Segment { slot: Index, pages: u64 },
    Object { slot: Index, offset: u64, len: u64 },
    Retire { which: Index },
    Release { call: u64 },
    Return { segment: u32, page: u32 },
    Resend { call: u64 },
    Cancel { call: u64 },
}

/// A block in what was announced until then.
#[derive(Clone, Debug)]
struct Place {
    which: Index,
    page: Index,
    len: Index,
}

impl Place {
    /// The block that this comes to among these, if there are any.
    fn among(&self, announced: &[(u32, u64)]) -> Option<BlockRef> {
        let (segment, size) = *announced.get(self.which.index(announced.len().max(1)))?;
        let page = self.page.index((size / PAGE) as usize + 1) as u64;
        let len = self.len.index((size - page * PAGE) as usize + 1) as u64;
        Some(BlockRef { segment, page: page as u32, len })
    }
}

fn parts() -> impl Strategy<Value = Vec<Part>> {
    let len =
        prop_oneof![6 => 0..200_usize, 3 => 0..5000_usize, 1 => 30_000..34_000_usize, 1 => 0..400_000_usize];
    let call = any::<u64>();
    let place = (any::<Index>(), any::<Index>(), any::<Index>()).prop_map(|(which, page, len)| Place {
        which,
        page,
        len,
    });
    let loans = prop_oneof![2 => Just(Vec::new()), 1 => proptest::collection::vec(place.clone(), 1..5)];
    let part = prop_oneof![
        4 => (call, any::<u16>(), len, loans.clone())
            .prop_map(|(call, method, len, loans)| Part::Inline { call, method, len, loans }),
        2 => (call, any::<u16>(), place, loans)
            .prop_map(|(call, method, place, loans)| Part::Mapped { call, method, place, loans }),
        1 => (call, "[a-zäß ]{0,40}").prop_map(|(call, text)| Part::Failure { call, text }),
        2 => (any::<Index>(), 1..16_u64).prop_map(|(slot, pages)| Part::Segment { slot, pages }),
        1 => (any::<Index>(), any::<u32>(), 1..100_000_u64)
            .prop_map(|(slot, offset, len)| Part::Object { slot, offset: offset.into(), len }),
        1 => any::<Index>().prop_map(|which| Part::Retire { which }),
        1 => call.prop_map(|call| Part::Release { call }),
        1 => (0..OBJECT, any::<u32>()).prop_map(|(segment, page)| Part::Return { segment, page }),
        1 => call.prop_map(|call| Part::Resend { call }),
        1 => call.prop_map(|call| Part::Cancel { call }),
    ];
    proptest::collection::vec(part, 0..24)
}

/// What a peer of a side in some role sends: its bytes, and the descriptors with the places where they
/// belong.
#[derive(Clone, Debug, Default)]
struct Stream {
    bytes: Vec<u8>,
    descriptors: Vec<(usize, u32)>,
    messages: Vec<Seen>,
}

/// The limits of random streams: wide enough for all that [`parts`] makes.
fn wide() -> Limits {
    Limits { max_message: 1 << 20, pool: 64 << 20, ..Limits::default() }
}

impl Stream {
    fn new(role: Role, parts: Vec<Part>) -> Self {
        let mut stream = Self::default();
        let mut announced: Vec<(u32, u64)> = Vec::new();
        for part in parts {
            let free_slot = |slot: Index, first: u32| {
                let is_free = |number: &u32| announced.iter().all(|(other, _)| other != number);
                let free: Vec<u32> = (first..first + 64).filter(is_free).collect();
                *slot.get(&free)
            };
            let loans_of = |loans: &[Place]| -> Vec<BlockRef> {
                loans.iter().filter_map(|place| place.among(&announced)).collect()
            };
            match part {
                Part::Inline { call, method, len, loans } => {
                    stream.body(role, call, method, len, loans_of(&loans));
                }
                Part::Mapped { call, method, place, loans } => {
                    let segments: Vec<_> =
                        announced.iter().copied().filter(|(number, _)| number & OBJECT == 0).collect();
                    let loans = loans_of(&loans);
                    match place.among(&segments) {
                        Some(block) => {
                            let seen = SeenBody::Block(block);
                            stream.send(role, call, method, &[], Body::Mapped(block), seen, loans);
                        }
                        None => stream.body(role, call, method, 3, loans),
                    }
                }
                Part::Failure { call, text } if role == Role::Client => {
                    let error = Error::other(&text);
                    stream.bytes.extend(failure(call, &error));
                    let (kind, progress) = (error.kind(), error.progress());
                    stream.messages.push(Seen::Failure { call, kind, progress, message: text });
                }
                Part::Segment { slot, pages } => {
                    let (number, len) = (free_slot(slot, 0), pages * PAGE);
                    let descriptor = stream.descriptor();
                    announced.push((number, len));
                    stream.bytes.extend(frame::segment(number, len));
                    stream.messages.push(Seen::Segment { number, len, descriptor: Some(descriptor) });
                }
                Part::Object { slot, offset, len } => {
                    let number = free_slot(slot, OBJECT);
                    let descriptor = Some(stream.descriptor());
                    announced.push((number, len));
                    stream.bytes.extend(frame::object(number, offset, len));
                    stream.messages.push(Seen::Object { number, offset, len, descriptor });
                }
                Part::Retire { which } if !announced.is_empty() => {
                    let (number, _) = announced.swap_remove(which.index(announced.len()));
                    stream.bytes.extend(frame::retire(number));
                    stream.messages.push(Seen::Retire { number });
                }
                Part::Retire { .. } => {}
                Part::Release { call } if role == Role::Server => {
                    stream.bytes.extend(frame::release(CallId::new(call)));
                    stream.messages.push(Seen::Release { call });
                }
                Part::Return { segment, page } => {
                    stream.bytes.extend(frame::returned(segment, page));
                    stream.messages.push(Seen::Return { segment, page });
                }
                Part::Resend { call } => {
                    stream.bytes.extend(frame::resend(CallId::new(call)));
                    stream.messages.push(Seen::Resend { call });
                }
                Part::Cancel { call } if role == Role::Server => {
                    stream.bytes.extend(frame::cancel(CallId::new(call)));
                    stream.messages.push(Seen::Cancel { call });
                }
                Part::Failure { call, .. } | Part::Release { call } | Part::Cancel { call } => {
                    stream.body(role, call, 0, 0, Vec::new());
                }
            }
        }
        stream
    }

    /// A descriptor for the frame that comes next.
    fn descriptor(&mut self) -> u32 {
        let descriptor = 1000 + self.descriptors.len() as u32;
        self.descriptors.push((self.bytes.len(), descriptor));
        descriptor
    }

    fn body(&mut self, role: Role, call: u64, method: u16, len: usize, loans: Vec<BlockRef>) {
        let bytes: Vec<u8> = (0..len).map(|at| (at as u64 ^ call) as u8).collect();
        self.send(role, call, method, &bytes, Body::Inline, SeenBody::Inline(bytes.clone()), loans);
    }

    #[expect(clippy::too_many_arguments, reason = "a frame has so many parts")]
    fn send(
        &mut self,
        role: Role,
        call: u64,
        method: u16,
        bytes: &[u8],
        place: Body,
        body: SeenBody,
        loans: Vec<BlockRef>,
    ) {
        let mut frame = Vec::new();
        match role {
            Role::Server => frame::begin_call(&mut frame, method),
            Role::Client => frame::begin_reply(&mut frame),
        }
        frame.extend_from_slice(bytes);
        frame::seal(&mut frame, CallId::new(call), place, &loans);
        self.bytes.extend(frame);
        self.messages.push(match role {
            Role::Server => Seen::Call { call, method, body, loans },
            Role::Client => Seen::Reply { call, body, loans },
        });
    }

    /// Receives the stream in pieces of these lengths, over and over, as the kernel would give them: a
    /// descriptor comes with the piece that has its byte, and a piece never goes on beyond what was sent with
    /// a descriptor. Where a piece says so, the messages are not taken before the next one.
    fn receive(&self, driver: &mut Driver, pieces: &[(usize, bool)]) -> Result<(), Violation> {
        let mut pieces = pieces.iter().cycle();
        let mut at = 0;
        let mut untaken = 0;
        while at < self.bytes.len() {
            let (len, takes) = *pieces.next().expect("there is a piece");
            let mut ahead =
                self.descriptors.iter().filter(|(place, _)| *place >= at).map(|(place, _)| *place);
            let own = ahead.next().filter(|place| *place < at.saturating_add(len));
            let end = match own {
                // Sent in one go with all that follows, up to the next that has a descriptor.
                Some(_) => ahead.next().unwrap_or(self.bytes.len()),
                None => self.bytes.len(),
            };
            let end = end.min(at.saturating_add(len));
            let room = driver.receiver.space().len();
            let end = end.min(at + room);
            let descriptors: Vec<u32> = self
                .descriptors
                .iter()
                .filter(|(place, _)| (at..end).contains(place))
                .map(|(_, number)| *number)
                .collect();
            untaken += descriptors.len();
            let received = driver.receive(&self.bytes[at..end], &descriptors)?;
            assert_eq!(received, end - at);
            at = end;
            if takes || untaken > 8 {
                driver.drain()?;
                untaken = 0;
            }
        }
        driver.drain()
    }
}

fn pieces() -> impl Strategy<Value = Vec<(usize, bool)>> {
    let len = prop_oneof![1..40_usize, 1..5000_usize, 1..100_000_usize];
    proptest::collection::vec((len, prop::bool::weighted(0.8)), 1..20)
}

fn role() -> impl Strategy<Value = Role> {
    prop_oneof![Just(Role::Client), Just(Role::Server)]
}

/// Frames that are nearly ones: fields from the edges of their ranges, bodies that fit or do not.
fn near_frame() -> impl Strategy<Value = Vec<u8>> {
    let edge = prop_oneof![0..4_u64, Just(PAGE), Just(u64::MAX), Just(1 << 20), any::<u64>()];
    let number = prop_oneof![4 => 0..3_u32, 1 => OBJECT..OBJECT + 3];
    let block = (number.clone(), prop_oneof![0..4_u32, any::<u32>()], edge.clone())
        .prop_map(|(segment, page, len)| BlockRef { segment, page, len }.encode().to_vec());
    let body = prop_oneof![
        3 => block.clone(),
        2 => Just(PAGE.to_le_bytes().to_vec()),
        2 => Just([0, PAGE].map(u64::to_le_bytes).concat()),
        1 => edge.prop_map(|len| len.to_le_bytes().to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 0..60),
        1 => Just(Vec::new()),
    ];
    let table = (proptest::collection::vec(block, 0..4), prop_oneof![3 => 0..4_u16, 1 => any::<u16>()])
        .prop_map(|(blocks, count)| [blocks.concat(), count.to_le_bytes().to_vec()].concat());
    let body = prop_oneof![
        3 => body.clone(),
        2 => (body, table).prop_map(|(body, table)| [body, table].concat()),
    ];
    let lie = prop_oneof![8 => Just(None), 1 => any::<u32>().prop_map(Some)];
    let call = prop_oneof![3 => number.prop_map(u64::from), 1 => any::<u64>()];
    (0..10_u8, prop_oneof![0..8_u8, 0..16_u8], any::<u16>(), call, body, lie).prop_map(
        |(kind, flags, method, call, body, lie)| {
            let mut bytes = header(lie.unwrap_or(body.len() as u32), kind, flags, method, call);
            bytes.extend(body);
            bytes
        },
    )
}

proptest! {
    #[test]
    fn a_stream_means_the_same_in_whatever_pieces_it_arrives(
        role in role(),
        parts in parts(),
        pieces in pieces(),
    ) {
        let stream = Stream::new(role, parts);
        for pieces in [&[(usize::MAX, true)][..], &pieces] {
            let mut driver = Driver::new(role, wide());
            stream.receive(&mut driver, pieces).unwrap();
            prop_assert_eq!(&driver.seen, &stream.messages);
            prop_assert!(driver.receiver.is_drained() && !driver.receiver.has_next());
        }
    }

    #[test]
    fn random_bytes_are_refused_or_waited_for(
        role in role(),
        bytes in proptest::collection::vec(any::<u8>(), 0..2000),
        descriptors in proptest::collection::vec(any::<u32>(), 0..20),
    ) {
        let mut driver = Driver::new(role, limits());
        let _ = driver.feed(&bytes, &descriptors);
    }

    #[test]
    fn frames_that_are_nearly_ones_never_panic(
        role in role(),
        frames in proptest::collection::vec((near_frame(), 0..3_u32, any::<bool>()), 0..20),
        cut in 1..40_usize,
    ) {
        let mut driver = Driver::new(role, limits());
        let _ = frames.iter().try_for_each(|(bytes, descriptors, lost)| {
            let descriptors: Vec<u32> = (0..*descriptors).collect();
            let (first, rest) = bytes.split_at(cut.min(bytes.len()));
            driver.receive_or_lose(first, &descriptors, *lost)?;
            driver.drain()?;
            driver.feed(rest, &[])
        });
    }

    #[test]
    fn a_damaged_stream_never_panics(
        role in role(),
        parts in parts(),
        pieces in pieces(),
        damages in proptest::collection::vec((any::<Index>(), any::<u8>(), 0..4_u8), 1..8),
    ) {
        let mut stream = Stream::new(role, parts);
        for (at, byte, how) in damages {
            if stream.bytes.is_empty() {
                break;
            }
            let at = at.index(stream.bytes.len());
            match how {
                0 => stream.bytes[at] = byte,
                1 => stream.bytes[at] ^= 1 << (byte % 8),
                2 => stream.bytes.insert(at, byte),
                _ => drop(stream.bytes.remove(at)),
            }
        }
        let mut driver = Driver::new(role, limits());
        let _ = stream.receive(&mut driver, &pieces);
    }

    #[test]
    fn a_stream_to_the_other_role_is_refused_at_its_first_body(role in role(), call in any::<u64>()) {
        let other = if role == Role::Client { Role::Server } else { Role::Client };
        let stream = Stream::new(role, vec![Part::Inline { call, method: 0, len: 10, loans: Vec::new() }]);
        let mut driver = Driver::new(other, wide());
        let violation = stream.receive(&mut driver, &[(usize::MAX, true)]).unwrap_err();
        let is_direction = matches!(violation, Violation::Direction { .. });
        prop_assert!(is_direction);
    }
}
