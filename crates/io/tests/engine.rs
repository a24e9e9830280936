//! One suite of tests over every bulk engine, on the real disk and on the simulated one.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests, where a panic is the report"
)]

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use holdfast_io::engine::{Direction, PoolEngine, UringEngine};
use holdfast_io::sim::{Fault, OpKind};
use holdfast_io::{
    Completion, Disk, Engine, EngineChoice, EngineOptions, Error, Open, RealDisk, Request, SimDisk,
};

const BLOCK: usize = 64 * 1024;

fn options() -> EngineOptions {
    EngineOptions {
        depth: 8,
        buffers: 12,
        buffer_bytes: 64 * 1024,
        register: true,
        patience: Duration::from_secs(60),
    }
}

/// Every engine this host allows. A host without io_uring must then choose the pool by itself.
fn engines() -> Vec<Box<dyn Engine>> {
    let mut all: Vec<Box<dyn Engine>> = vec![Box::new(PoolEngine::new(options()).unwrap())];
    match UringEngine::new(options()) {
        Ok(uring) => {
            all.push(Box::new(uring));
            all.push(Box::new(UringEngine::new(EngineOptions { register: false, ..options() }).unwrap()));
        }
        Err(why) => {
            eprintln!("this host forbids io_uring: {why}");
            assert_eq!(EngineChoice::Probe.open(options()).unwrap().name(), "pool");
        }
    }
    all
}

/// Runs a test over each engine and each disk, in a folder of its own.
fn over_all(test: impl Fn(&mut dyn Engine, &dyn Disk, &Path)) {
    for mut engine in engines() {
        let folder = tempfile::tempdir().unwrap();
        test(engine.as_mut(), &RealDisk, folder.path());
        test(engine.as_mut(), &SimDisk::new(), Path::new("/"));
        assert_eq!(engine.in_flight(), 0);
        assert_eq!(
            engine.slab().free_count(),
            engine.slab().count(),
            "every buffer came back to {}",
            engine.name()
        );
    }
}

fn pattern(file: u64, block: u64) -> Vec<u8> {
    let mut x = file.wrapping_mul(0x9e37_79b9) ^ block.wrapping_mul(0x85eb_ca6b) ^ 1;
    (0..BLOCK)
        .map(|_| {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (x >> 33) as u8
        })
        .collect()
}

fn next(engine: &mut dyn Engine) -> Completion {
    engine.complete().unwrap().unwrap_or_else(|| panic!("nothing is in flight in {}", engine.name()))
}

#[test]
fn many_blocks_of_several_files_written_out_of_order_read_back_as_they_were() {
    over_all(|engine, disk, folder| {
        let files: Vec<_> =
            (0..3).map(|n| disk.open(&folder.join(format!("f{n}")), Open::CreateNew).unwrap()).collect();
        let blocks = 40_u64;
        for block in (0..blocks).rev() {
            for (n, file) in files.iter().enumerate() {
                let mut buffer = loop {
                    match engine.slab().try_take() {
                        Some(buffer) => break buffer,
                        None => assert_eq!(next(engine).result.unwrap(), BLOCK as u32),
                    }
                };
                assert_eq!(buffer.fill(&pattern(n as u64, block)), BLOCK);
                let (file, offset) = (Arc::clone(file), block * BLOCK as u64);
                engine
                    .submit(Request { file, offset, buffer, direction: Direction::Write, token: block })
                    .unwrap();
            }
        }
        while engine.in_flight() > 0 {
            assert_eq!(next(engine).result.unwrap(), BLOCK as u32);
        }
        for file in &files {
            file.sync_data().unwrap();
        }
        let mut open = HashMap::new();
        let mut todo = (0..blocks).flat_map(|b| (0..3_u64).map(move |f| (f, b))).peekable();
        let mut seen = 0;
        while todo.peek().is_some() || engine.in_flight() > 0 {
            while engine.room() > 0 && todo.peek().is_some() {
                let Some(buffer) = engine.slab().try_take() else { break };
                let (f, b) = todo.next().unwrap();
                open.insert(f * 1000 + b, (f, b));
                let (file, offset) = (Arc::clone(&files[f as usize]), b * BLOCK as u64);
                let direction = Direction::Read { len: BLOCK as u32 };
                engine.submit(Request { file, offset, buffer, direction, token: f * 1000 + b }).unwrap();
            }
            let done = next(engine);
            let (f, b) = open.remove(&done.token).unwrap();
            assert_eq!(done.result.unwrap(), BLOCK as u32);
            assert_eq!(done.buffer.filled(), pattern(f, b), "file {f} block {b}");
            seen += 1;
        }
        assert_eq!(seen, blocks * 3);
    });
}

#[test]
fn a_read_across_the_end_of_a_file_gives_what_is_there() {
    over_all(|engine, disk, folder| {
        let file = disk.open(&folder.join("short"), Open::CreateNew).unwrap();
        file.write_all_at(0, &[9; 1000]).unwrap();
        for (offset, expected) in [(0, 1000), (600, 400), (1000, 0), (50_000, 0)] {
            let buffer = engine.slab().try_take().unwrap();
            let direction = Direction::Read { len: BLOCK as u32 };
            engine
                .submit(Request { file: Arc::clone(&file), offset, buffer, direction, token: offset })
                .unwrap();
            let done = next(engine);
            assert_eq!(done.result.unwrap(), expected);
            assert_eq!(done.buffer.filled(), vec![9; expected as usize]);
        }
    });
}

#[test]
fn more_requests_than_the_queue_is_deep_are_taken_and_all_complete() {
    over_all(|engine, disk, folder| {
        let file = disk.open(&folder.join("deep"), Open::CreateNew).unwrap();
        file.write_all_at(0, &pattern(0, 0)).unwrap();
        let mut buffers = Vec::new();
        while let Some(buffer) = engine.slab().try_take() {
            buffers.push(buffer);
        }
        assert_eq!(buffers.len(), 12);
        assert!(matches!(engine.slab().take(Duration::from_millis(5)), Err(Error::Stalled { .. })));
        for (token, buffer) in buffers.into_iter().enumerate() {
            let direction = Direction::Read { len: 512 };
            let (file, token) = (Arc::clone(&file), token as u64);
            engine.submit(Request { file, offset: token * 512, buffer, direction, token }).unwrap();
        }
        assert_eq!(engine.in_flight(), 12);
        let mut tokens = Vec::new();
        while let Some(done) = engine.complete().unwrap() {
            let at = done.token as usize * 512;
            assert_eq!(done.buffer.filled(), &pattern(0, 0)[at..at + 512]);
            tokens.push(done.token);
        }
        tokens.sort_unstable();
        assert_eq!(tokens, (0..12).collect::<Vec<u64>>());
        assert!(engine.try_complete().unwrap().is_none());
    });
}

#[test]
fn what_is_done_can_be_asked_for_without_waiting() {
    over_all(|engine, disk, folder| {
        let file = disk.open(&folder.join("poll"), Open::CreateNew).unwrap();
        file.write_all_at(0, &[3; 4096]).unwrap();
        let buffer = engine.slab().try_take().unwrap();
        let direction = Direction::Read { len: 4096 };
        engine.submit(Request { file, offset: 0, buffer, direction, token: 1 }).unwrap();
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        let done = loop {
            if let Some(done) = engine.try_complete().unwrap() {
                break done;
            }
            assert!(std::time::Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(1));
        };
        assert_eq!(done.result.unwrap(), 4096);
    });
}

#[test]
fn a_request_that_cannot_be_is_an_error_of_that_request_only() {
    over_all(|engine, disk, folder| {
        let file = disk.open(&folder.join("odd"), Open::CreateNew).unwrap();
        let readonly = disk.open(&folder.join("odd"), Open::Read).unwrap();
        let cases = [
            (Direction::Read { len: BLOCK as u32 + 1 }, 0, Arc::clone(&file)),
            (Direction::Read { len: 10 }, u64::MAX - 3, Arc::clone(&file)),
            (Direction::Write, 0, readonly),
        ];
        for (direction, offset, file) in cases {
            let mut buffer = engine.slab().try_take().unwrap();
            buffer.fill(b"x");
            engine.submit(Request { file, offset, buffer, direction, token: 0 }).unwrap();
            assert!(next(engine).result.is_err(), "{direction:?} at {offset} by {}", engine.name());
        }
        let mut buffer = engine.slab().try_take().unwrap();
        buffer.fill(b"fine");
        let direction = Direction::Write;
        engine.submit(Request { file: Arc::clone(&file), offset: 0, buffer, direction, token: 0 }).unwrap();
        assert_eq!(next(engine).result.unwrap(), 4);
        assert_eq!(file.len().unwrap(), 4);
    });
}

#[test]
fn nothing_is_written_through_a_handle_whose_sync_failed() {
    for mut engine in engines() {
        let disk = SimDisk::new();
        let file = disk.open("/f".as_ref(), Open::CreateNew).unwrap();
        file.write_all_at(0, b"one").unwrap();
        disk.inject(Some(OpKind::Sync), 0, Fault::Eio);
        assert!(file.sync_data().is_err());
        let mut buffer = engine.slab().try_take().unwrap();
        buffer.fill(b"two");
        engine.submit(Request { file, offset: 0, buffer, direction: Direction::Write, token: 0 }).unwrap();
        assert!(matches!(next(engine.as_mut()).result, Err(Error::Poisoned { .. })));
    }
}

#[test]
fn short_and_interrupted_transfers_are_carried_on_and_errors_are_told() {
    for mut engine in engines() {
        let disk = SimDisk::new();
        let file = disk.open("/f".as_ref(), Open::CreateNew).unwrap();
        for (kind, direction) in
            [(OpKind::Write, Direction::Write), (OpKind::Read, Direction::Read { len: BLOCK as u32 })]
        {
            for fault in [Fault::Short, Fault::Eintr, Fault::Eio] {
                disk.inject(Some(kind), 0, fault);
                let mut buffer = engine.slab().try_take().unwrap();
                buffer.fill(&pattern(1, 1));
                let file = Arc::clone(&file);
                engine.submit(Request { file, offset: 0, buffer, direction, token: 0 }).unwrap();
                let done = next(engine.as_mut());
                match fault {
                    Fault::Eio => assert!(matches!(done.result, Err(Error::Io { .. }))),
                    _ => {
                        assert_eq!(done.result.unwrap(), BLOCK as u32, "{fault:?}");
                        assert_eq!(done.buffer.filled(), pattern(1, 1));
                    }
                }
            }
        }
    }
}

#[test]
fn buffers_travel_to_other_threads_and_come_back_by_being_dropped() {
    over_all(|engine, disk, folder| {
        let file = disk.open(&folder.join("travel"), Open::CreateNew).unwrap();
        file.write_all_at(0, &pattern(2, 2)).unwrap();
        let (send, receive) = std::sync::mpsc::sync_channel::<Completion>(2);
        std::thread::scope(|scope| {
            let sum = scope.spawn(move || receive.iter().map(|c| c.buffer.filled().len()).sum::<usize>());
            for token in 0..60 {
                let buffer = engine.slab().take(Duration::from_secs(60)).unwrap();
                let direction = Direction::Read { len: 1000 };
                engine
                    .submit(Request { file: Arc::clone(&file), offset: 0, buffer, direction, token })
                    .unwrap();
                if engine.room() == 0 {
                    send.send(next(engine)).unwrap();
                }
            }
            while let Some(done) = engine.complete().unwrap() {
                send.send(done).unwrap();
            }
            drop(send);
            assert_eq!(sum.join().unwrap(), 60_000);
        });
    });
}

#[test]
fn an_engine_dropped_with_requests_in_flight_waits_for_them() {
    let folder = tempfile::tempdir().unwrap();
    for (n, mut engine) in engines().into_iter().enumerate() {
        let path = folder.path().join(format!("drop{n}"));
        let file = RealDisk.open(&path, Open::CreateNew).unwrap();
        for block in 0..8 {
            let mut buffer = engine.slab().try_take().unwrap();
            buffer.fill(&pattern(0, block));
            let (file, offset) = (Arc::clone(&file), block * BLOCK as u64);
            engine
                .submit(Request { file, offset, buffer, direction: Direction::Write, token: block })
                .unwrap();
        }
        let slab = Arc::clone(engine.slab());
        drop(engine);
        assert_eq!(slab.free_count(), slab.count());
        let back = std::fs::read(&path).unwrap();
        for block in 0..8_u64 {
            assert_eq!(&back[block as usize * BLOCK..][..BLOCK], pattern(0, block));
        }
    }
}

#[test]
fn the_engine_is_chosen_by_probing_or_by_name() {
    assert_eq!("pool".parse::<EngineChoice>().unwrap(), EngineChoice::Pool);
    assert_eq!("auto".parse::<EngineChoice>().unwrap(), EngineChoice::Probe);
    assert!("floppy".parse::<EngineChoice>().is_err());
    assert_eq!(EngineChoice::Pool.open(options()).unwrap().name(), "pool");
    let probed = EngineChoice::Probe.open(options()).unwrap();
    assert_eq!(probed.name() == "pool", UringEngine::new(options()).is_err());
    eprintln!("chosen here: {}", probed.name());
}

#[test]
fn what_goes_past_the_page_cache_and_what_does_not_is_one_file() {
    for mut engine in engines() {
        let engine = engine.as_mut();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        let file = RealDisk.open_bulk(&path, Open::CreateNew).unwrap();
        // Whole pages, a tail that is none, and a hole in between.
        let tail = 1234;
        let mut expected = vec![0_u8; 6 * BLOCK + tail];
        file.set_len(expected.len() as u64).unwrap();
        for (block, len) in [(4, BLOCK), (0, BLOCK), (1, BLOCK - 4096), (2, 100), (6, tail)] {
            let bytes = &pattern(1, block)[..len];
            let at = block as usize * BLOCK;
            expected[at..at + len].copy_from_slice(bytes);
            let mut buffer = engine.slab().try_take().unwrap();
            assert_eq!(buffer.fill(bytes), len);
            let (offset, direction) = (block * BLOCK as u64, Direction::Write);
            let file = Arc::clone(&file);
            engine.submit(Request { file, offset, buffer, direction, token: block }).unwrap();
        }
        while let Some(done) = engine.complete().unwrap() {
            done.result.unwrap();
        }
        file.sync_all().unwrap();
        assert!(std::fs::read(&path).unwrap() == expected, "written by {}", engine.name());
        let file = RealDisk.open_bulk(&path, Open::Read).unwrap();
        for block in 0..8 {
            let buffer = engine.slab().try_take().unwrap();
            let (offset, direction) = (block * BLOCK as u64, Direction::Read { len: BLOCK as u32 });
            let file = Arc::clone(&file);
            engine.submit(Request { file, offset, buffer, direction, token: block }).unwrap();
            let done = next(engine);
            let from = (block as usize * BLOCK).min(expected.len());
            let part = &expected[from..expected.len().min(from + BLOCK)];
            assert_eq!(done.result.unwrap() as usize, part.len());
            assert!(done.buffer.filled() == part, "block {block} read by {}", engine.name());
        }
    }
}
