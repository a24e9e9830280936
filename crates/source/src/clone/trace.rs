//! A clone of a MySQL 9.7.4 as it came over one connection (the bytes of the data files left out): read whole, and
//! laid out.

use holdfast_mysql::clone::descriptor::{Descriptor, State};
use holdfast_mysql::clone::rpc::{ENGINE_INNODB, Response};

use super::files::Files;
use super::stages::Stages;
use super::stream::{Said, Stream};
use crate::sinks::MemorySink;
use crate::verify::VerifyingSink;

/// In hexadecimal, in order, twelve files and one redo file of three pieces, whose header comes second.
const TRACE: &[&str] = &[
    "000000640000001800000002000000000000000000000000",
    "000000640000002e0000000300000001000000000000000000000000000000000000000000000000000000000000",
    "000000640000002e0000000300000002000000000000000c0000000c0000000006f7de1a000000000d0ece1a0001",
    "000000640000004d00000004000000020000000000001e1a0000000000001e1affffffff000000000000ffffffff0000\
     000000000001000000010000000f69625f6275666665725f706f6f6c00",
    "000000640000004600000004000000020000000000c000000000000000c0000000004800000010000000000000000000\
     00010000000200000002000000086962646174613100",
    "00000064000000530000000400000002000000000001c000000000000001c00000004021000010000000000000010000\
     00020000000300000003000000152e2f7379732f7379735f636f6e6669672e69626400",
    "000000640000004b00000004000000020000000000c000000000000000c0100000004021000010000000000000060000\
     000300000004000000040000000d2e2f73686f702f612e69626400",
    "000000640000004c00000004000000020000000000600000000000000060100000004029000010000000000000070000\
     000400000005000000050000000e2e2f73686f702f7a382e69626400",
    "000000640000004c00000004000000020000000000200000000000000020100000004025000010000000000000080000\
     000500000006000000060000000e2e2f73686f702f7a322e69626400",
    "000000640000004b00000004000000020000000000060000000000000006000000004021000010000000000000090000\
     000600000007000000070000000d2e2f73686f702f672e69626400",
    "000000640000004c00000004000000020000000000b00000000000000086a000000040210000100000010000000a0000\
     000700000008000000080000000e2e2f73686f702f70632e69626400",
    "000000640000004d00000004000000020000000000a000000000000000a01000000040210000100000000000000b0000\
     000800000009000000090000000f2e2f73686f702f6c65642e69626400",
    "000000640000004800000004000000020000000001a000000000000001a0100000004800000010000000fffffffe0000\
     00090000000a0000000a0000000a6d7973716c2e69626400",
    "000000640000004700000004000000020000000001000000000000000100000000000000000010000000ffffffee0000\
     000a0000000b0000000b00000009756e646f5f30303200",
    "000000640000004700000004000000020000000001000000000000000100000000000000000010000000ffffffef0000\
     000b0000000c0000000c00000009756e646f5f30303100",
    "000000640000002e0000000300000002000000000000000c0000000c000000000000000000000000000000000000",
    "000000640000002e00000003000000030000000000000000000000000000000000000000000000000d0ece1a0001",
    "000000640000002e0000000300000003000000000000000000000000000000000000000000000000000000000000",
    "000000640000002e00000003000000040000000000000003000000010000000000000c00000000000d0ece1a0001",
    "000000640000003e000000040000000400000000003200000000000000000000ffffffff000000000000fffffff00000\
     0000000000010000000100000000",
    "000000640000003e000000040000000400000000003200000000000000000000ffffffff000000000000fffffff00000\
     0000000000010000000100000000",
    "000000640000003400000005000000040000000000000001000000010000000000000200000000000000080000000000\
     00000a00",
    "000000640000003400000005000000040000000000000002000000010000000000000800000000000000000000000000\
     00000a00",
    "0000006400000034000000050000000400000000000000030000000100000000000002000000000000000a0000000000\
     00000a00",
    "000000640000002e0000000300000004000000000000000300000001000000000000000000000000000000000000",
    "000000640000002e00000003000000050000000000000000000000000000000000000000000000000d0ece1a0001",
];

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().map(|b| (b as char).to_digit(16).unwrap() as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

#[test]
fn a_recorded_clone_goes_through_its_stages_and_is_laid_out_under_its_names() {
    let memory = MemorySink::new();
    let sink = VerifyingSink::new(&memory);
    let files = Files::new(&sink, (9, 7, 4), 16384);
    let stages = Stages::new();
    let mut stream = Stream::default();
    let mut begun = State::Init;
    let mut due = 0;
    for hex in TRACE {
        let descriptor = bytes(hex);
        let message = Response::Descriptor { engine: ENGINE_INNODB, locator_index: 0, bytes: &descriptor };
        match stream.take(message).unwrap() {
            Said::Begins(state) => {
                begun = state.state;
                due = u64::from(state.files);
                if !matches!(begun, State::FileCopy | State::RedoCopy) {
                    stages.open(begun).unwrap();
                }
            }
            Said::File(file) => {
                assert_eq!(file.state, begun);
                files.announce(&file).unwrap();
                if stages.now() != begun && files.known(begun) == due {
                    stages.open(begun).unwrap();
                }
            }
            Said::Ends(state) => {
                stages.end(state.state).unwrap();
                stages.wait_ended().unwrap();
                if state.state == State::FileCopy {
                    files.end_of_file_copy().unwrap();
                }
            }
            Said::Nothing => {
                if let Descriptor::Data(data) = Descriptor::parse(&descriptor).unwrap() {
                    let piece = vec![data.chunk as u8; data.len as usize];
                    match stream.take(Response::Data(&piece)).unwrap() {
                        Said::Bytes(data, bytes) => {
                            files.bytes(data.state, data.file_index, data.offset, bytes).unwrap();
                        }
                        other => panic!("{other:?}"),
                    }
                }
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(stages.now(), State::Done);
    assert_eq!(files.finish().unwrap(), 13);
    let names: Vec<String> = memory.specs().into_keys().collect();
    let expected = [
        "#innodb_redo/#ib_redo0",
        "ib_buffer_pool",
        "ibdata1",
        "mysql",
        "mysql.ibd",
        "shop/a.ibd",
        "shop/g.ibd",
        "shop/led.ibd",
        "shop/pc.ibd",
        "shop/z2.ibd",
        "shop/z8.ibd",
        "sys/sys_config.ibd",
        "undo_001",
        "undo_002",
    ];
    assert_eq!(names, expected);
    assert_eq!(memory.content("ibdata1").unwrap().len(), 12 << 20);
    let redo = memory.content("#innodb_redo/#ib_redo0").unwrap();
    assert_eq!(redo.len(), 0x0032_0000);
    assert_eq!(
        (redo[0], redo[0x7ff], redo[0x800], redo[0x9ff], redo[0xa00], redo[0xbff], redo[0xc00]),
        (2, 2, 1, 1, 3, 3, 0)
    );
}
