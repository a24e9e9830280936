//! The door to the network, tried from outside by the bytes that a client sends: which versions of TLS it speaks, and to
//! whom.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a panic is how a test fails"
)]

mod bed;

use bed::{Bed, converse};
use holdfast_daemon::tokens::Role;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// The first words of a client that speaks no version above this one: `(3, 1)` is TLS 1.0, `(3, 2)` 1.1, `(3, 3)` 1.2.
fn hello(version: (u8, u8)) -> Vec<u8> {
    // All that a server of ours wants of a client of TLS 1.2, so that the version alone decides; and AES of older days.
    let suites: [u16; 6] = [0xc02b, 0xc02f, 0xc030, 0xc013, 0xc014, 0x002f];
    let mut body = vec![version.0, version.1];
    body.extend([7; 32]);
    body.push(0);
    body.extend(((suites.len() * 2) as u16).to_be_bytes());
    body.extend(suites.iter().flat_map(|suite| suite.to_be_bytes()));
    body.extend([1, 0]);
    let extensions: [&[u8]; 5] = [
        // Groups, and the forms of their points.
        &[0, 10, 0, 6, 0, 4, 0, 29, 0, 23],
        &[0, 11, 0, 2, 1, 0],
        // Signatures.
        &[0, 13, 0, 12, 0, 10, 4, 3, 5, 3, 8, 4, 4, 1, 8, 7],
        // The master secret is bound to the handshake; no session is renegotiated.
        &[0, 23, 0, 0],
        &[0xff, 1, 0, 1, 0],
    ];
    let extensions = extensions.concat();
    body.extend((extensions.len() as u16).to_be_bytes());
    body.extend(extensions);
    let mut handshake = vec![1, 0];
    handshake.extend((body.len() as u16).to_be_bytes());
    handshake.extend(body);
    let mut record = vec![22, 3, 1];
    record.extend((handshake.len() as u16).to_be_bytes());
    record.extend(handshake);
    record
}

/// A client that says this and no more.
fn said(port: u16, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(bytes).unwrap();
    stream
}

/// All that it is answered until the door is shut.
fn answer(port: u16, bytes: &[u8]) -> Vec<u8> {
    let mut answered = Vec::new();
    let _ = said(port, bytes).read_to_end(&mut answered);
    answered
}

/// Kind of the first record of the answer, and of the first message in it.
fn first_record(port: u16, bytes: &[u8]) -> (u8, u8) {
    let mut answered = [0; 6];
    said(port, bytes).read_exact(&mut answered).unwrap();
    (answered[0], answered[5])
}

/// Status of a request over one of these versions of TLS, and which of them was spoken.
fn ask(bed: &Bed, versions: &[&'static rustls::SupportedProtocolVersion]) -> (u16, u16) {
    let mut tls = bed.tls(versions);
    let header = format!("Authorization: Bearer {}\r\n", bed.token(Role::Viewer));
    let (status, _) = converse(&mut tls, "GET", "/api/v1/me", &header, None);
    (status, tls.conn.protocol_version().map_or(0, u16::from))
}

#[test]
fn tls_1_2_and_1_3_are_spoken_and_nothing_older() {
    const ALERT: u8 = 21;
    const FATAL: u8 = 2;
    const PROTOCOL_VERSION: u8 = 70;
    let bed = Bed::start("");
    assert_eq!(ask(&bed, &[&rustls::version::TLS13]), (200, 0x0304));
    assert_eq!(ask(&bed, &[&rustls::version::TLS12]), (200, 0x0303));
    for (version, words) in [((3, 0), "SSL 3.0"), ((3, 1), "TLS 1.0"), ((3, 2), "TLS 1.1")] {
        let told = answer(bed.port, &hello(version));
        assert_eq!(told.first(), Some(&ALERT), "{words}: {told:?}");
        assert_eq!(told.get(5..7), Some(&[FATAL, PROTOCOL_VERSION][..]), "{words}: {told:?}");
    }
    // The same words with 1.2 in them are answered by the server's own.
    assert_eq!(first_record(bed.port, &hello((3, 3))), (22, 2), "a handshake, the server's hello");
    // It serves on.
    assert_eq!(ask(&bed, &[&rustls::version::TLS13]).0, 200);
}

#[test]
fn an_address_that_is_not_on_the_list_does_not_come_as_far_as_tls() {
    let bed = Bed::start("'10.0.0.0/8', '127.0.0.2'");
    let mut hello = hello((3, 3));
    assert_eq!(answer(bed.port, &hello), Vec::<u8>::new(), "not even an alert");
    hello.truncate(3);
    assert_eq!(answer(bed.port, &hello), Vec::<u8>::new());
    drop(bed);
    let bed = Bed::start("'10.0.0.0/8', '127.0.0.1'");
    assert_eq!(ask(&bed, &[&rustls::version::TLS13]).0, 200);
}
