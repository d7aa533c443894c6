//! What the parts of a call cost by themselves, in one thread, but for `dispatch`: a call between two threads
//! of one process.
#![allow(missing_docs, reason = "criterion's macros write functions without")]

#[path = "../src/compare/mixed.rs"]
mod mixed;

use std::hint::black_box;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use lpc_core::arena::Arena;
use lpc_core::codec::{Coding, Decoder, encode, encode_as};
use lpc_core::frame;
use lpc_core::ring::{self, Consumer, Own, Peers, Producer};
use serde::{Deserialize, Serialize};

use self::mixed::Mixed;

const LARGE: usize = 64 << 10;

/// A value there and back through the codec, and through the crate whose format it has: into a buffer that is used again, and
/// out of it.
fn codec<T>(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, value: &T)
where
    T: Serialize + for<'de> Deserialize<'de>,
{
    let mut bytes = Vec::new();
    encode(value, &mut bytes).expect("it can be encoded");
    assert_eq!(postcard::to_stdvec(value).expect("it can be encoded"), bytes);
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    let mut buffer = Vec::with_capacity(bytes.len());
    group.bench_function(format!("encode {name}"), |bencher| {
        bencher.iter(|| {
            buffer.clear();
            encode(black_box(value), &mut buffer).expect("it can be encoded");
            black_box(buffer.len())
        });
    });
    let mut space = vec![0; bytes.len()];
    group.bench_function(format!("encode {name} by postcard"), |bencher| {
        bencher.iter(|| {
            black_box(postcard::to_slice(black_box(value), &mut space).expect("it can be encoded").len())
        });
    });
    group.bench_function(format!("decode {name}"), |bencher| {
        bencher.iter(|| {
            let mut decoder = Decoder::new(black_box(&bytes));
            let value: T = decoder.next().expect("it was encoded");
            decoder.end().expect("nothing follows");
            value
        });
    });
    group.bench_function(format!("decode {name} by postcard"), |bencher| {
        bencher.iter(|| {
            let (value, rest) = postcard::take_from_bytes::<T>(black_box(&bytes)).expect("it was encoded");
            assert!(rest.is_empty());
            value
        });
    });
}

/// The same in the coding that describes itself, and in CBOR, by the crate of most use.
fn described<T>(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, value: &T)
where
    T: Serialize + for<'de> Deserialize<'de>,
{
    let mut bytes = Vec::new();
    encode_as(Coding::Described, value, &mut bytes).expect("it can be encoded");
    let mut cbor = Vec::new();
    ciborium::into_writer(value, &mut cbor).expect("it can be encoded");
    println!("{name}: {} bytes described, {} in CBOR", bytes.len(), cbor.len());
    let mut buffer = Vec::with_capacity(bytes.len().max(cbor.len()));
    group.bench_function(format!("encode {name}"), |bencher| {
        bencher.iter(|| {
            buffer.clear();
            encode_as(Coding::Described, black_box(value), &mut buffer).expect("it can be encoded");
            black_box(buffer.len())
        });
    });
    group.bench_function(format!("encode {name} by ciborium"), |bencher| {
        bencher.iter(|| {
            buffer.clear();
            ciborium::into_writer(black_box(value), &mut buffer).expect("it can be encoded");
            black_box(buffer.len())
        });
    });
    group.bench_function(format!("decode {name}"), |bencher| {
        bencher.iter(|| {
            let mut decoder = Decoder::new(black_box(&bytes));
            let value: T = decoder.next_as(Coding::Described).expect("it was encoded");
            decoder.end().expect("nothing follows");
            value
        });
    });
    group.bench_function(format!("decode {name} by ciborium"), |bencher| {
        bencher.iter(|| ciborium::from_reader::<T, _>(black_box(&cbor[..])).expect("it was encoded"));
    });
}

/// Structs within a sequence within a struct.
#[derive(Serialize, Deserialize)]
struct Nested {
    title: String,
    rows: Vec<Row>,
}

#[derive(Serialize, Deserialize)]
struct Row {
    id: u64,
    cells: Vec<Option<Cell>>,
}

#[derive(Serialize, Deserialize)]
enum Cell {
    Number(f64),
    Text(String),
    Pair { from: u32, to: u32 },
}

impl Nested {
    fn example() -> Self {
        let cell = |at: u32| match at % 4 {
            0 => None,
            1 => Some(Cell::Number(at.into())),
            2 => Some(Cell::Text(format!("cell {at}"))),
            _ => Some(Cell::Pair { from: at, to: at * at }),
        };
        let row = |id: u32| Row { id: id.into(), cells: (id..id + 8).map(cell).collect() };
        Self { title: "a table".into(), rows: (0..16).map(row).collect() }
    }
}

fn codecs(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("codec");
    codec(&mut group, "two integers", &(1_u64 << 40, 2_u64));
    codec(&mut group, "mixed struct", &Mixed::example());
    let words: Vec<_> = (0..100).map(|at| format!("the word of number {at}")).collect();
    codec(&mut group, "100 strings", &words);
    codec(&mut group, "64 KiB", &vec![7_u8; LARGE]);
    let numbers: Vec<_> = (0..1000).map(|at| 1_u64 << (at % 64)).collect();
    codec(&mut group, "1000 integers", &numbers);
    codec(&mut group, "nested structs", &Nested::example());
    group.finish();

    let mut group = criterion.benchmark_group("described");
    described(&mut group, "mixed struct", &Mixed::example());
    described(&mut group, "64 KiB", &vec![7_u8; LARGE]);
    described(&mut group, "1000 integers", &numbers);
    described(&mut group, "nested structs", &Nested::example());
    group.finish();
}

/// A block taken and given back, in an arena where every second page of many is in use.
fn arena(criterion: &mut Criterion) {
    let mut arena = Arena::new(64 << 20, 8, 4096);
    let size = arena.next_segment(16 << 20).expect("it is below the limit");
    arena.add_segment(size);
    let mut blocks: Vec<_> = (0..256).map(|_| arena.alloc(4096)).collect();
    for block in blocks.iter_mut().step_by(2) {
        arena.free(block.take().expect("there was room"));
    }
    let mut group = criterion.benchmark_group("arena");
    for (name, bytes) in [("4 KiB", 4096), ("1 MiB", 1 << 20)] {
        group.bench_function(format!("allocate and free {name}"), |bencher| {
            bencher.iter(|| {
                let block = arena.alloc(black_box(bytes)).expect("there is room");
                arena.free(block);
            });
        });
    }
    group.finish();
}

/// One side's memory of the quick lane, accessed word by word as that of two processes is.
struct Memory(Vec<AtomicU64>);

impl Memory {
    fn new() -> Self {
        Self((0..ring::LEN / size_of::<u64>()).map(|_| AtomicU64::new(0)).collect())
    }
}

impl Own for &Memory {
    fn write(&self, offset: usize, bytes: &[u8]) {
        for (word, piece) in self.0[offset / 8..].iter().zip(bytes.chunks(8)) {
            let mut value = [0; 8];
            value[..piece.len()].copy_from_slice(piece);
            word.store(u64::from_ne_bytes(value), Relaxed);
        }
    }

    fn store(&self, offset: usize, value: u64) {
        self.0[offset / 8].store(value, Release);
    }
}

impl Peers for &Memory {
    fn read(&self, offset: usize, into: &mut [u8]) {
        for (word, piece) in self.0[offset / 8..].iter().zip(into.chunks_mut(8)) {
            let len = piece.len();
            piece.copy_from_slice(&word.load(Relaxed).to_ne_bytes()[..len]);
        }
    }

    fn load(&self, offset: usize) -> u64 {
        self.0[offset / 8].load(Acquire)
    }
}

/// A frame written into a ring, the look at whether its reader sleeps, and the frame read out of it.
fn rings(criterion: &mut Criterion) {
    let (senders, receivers) = (Memory::new(), Memory::new());
    let mut producer = Producer::new(&senders, &receivers, ring::SLOTS);
    let mut consumer = Consumer::new(&receivers, &senders, ring::SLOTS);
    let mut space = Vec::with_capacity(ring::MAX_FRAME);
    let mut group = criterion.benchmark_group("ring");
    for (name, len) in [("64 bytes", 64), ("1 KiB", 1024)] {
        let mut bytes = Vec::new();
        frame::begin_call(&mut bytes, 1);
        bytes.resize(len, 7);
        // As `seal` would; a ring reads no more of a frame than its length.
        bytes[..4].copy_from_slice(&((len - frame::Header::LEN) as u32).to_le_bytes());
        group.bench_function(format!("write and read {name}"), |bencher| {
            bencher.iter(|| {
                assert_eq!(producer.put(black_box(&bytes)), Ok(true));
                black_box(producer.has_to_wake());
                space.clear();
                consumer.next().expect("an honest peer").expect("it was written").take(&mut space);
            });
        });
    }
    group.finish();
}

/// The work, as calls.
#[lpc::service]
trait Work {
    fn add(&self, a: u64, b: u64) -> lpc::Result<u64>;
    fn mixed(&self, mixed: &Mixed) -> lpc::Result<u64>;
    fn upload(&self, bytes: &[u8]) -> lpc::Result<u64>;
}

struct Worker;

impl Work for Worker {
    fn add(&self, a: u64, b: u64) -> lpc::Result<u64> {
        Ok(a.wrapping_add(b))
    }

    fn mixed(&self, mixed: &Mixed) -> lpc::Result<u64> {
        Ok(mixed.digest())
    }

    fn upload(&self, bytes: &[u8]) -> lpc::Result<u64> {
        Ok(bytes.len() as u64)
    }
}

/// A call from stub to stub, all the way but into another process.
fn dispatch(criterion: &mut Criterion) {
    let client = WorkClient::builder().in_process(Worker).expect("it is served");
    let (mixed, bytes) = (Mixed::example(), vec![7; LARGE]);
    let mut group = criterion.benchmark_group("dispatch");
    let answered = "the service answers";
    group.bench_function("two integers", |bencher| {
        bencher.iter(|| client.add(black_box(1), black_box(2)).expect(answered));
    });
    group.bench_function("mixed struct", |bencher| {
        bencher.iter(|| client.mixed(black_box(&mixed)).expect(answered));
    });
    group.bench_function("64 KiB", |bencher| {
        bencher.iter(|| client.upload(black_box(&bytes)).expect(answered));
    });
    group.finish();
}

criterion_group!(parts, codecs, arena, rings, dispatch);
criterion_main!(parts);
