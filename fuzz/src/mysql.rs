//! What a server, a donor or a user's file says to the crate `mysql`.

use std::path::Path;

use holdfast_mysql::auth::{Channel, Exchange, KeyTrust, Step};
use holdfast_mysql::clone::{Descriptor, InnoDbLocator, Response};
use holdfast_mysql::credentials::{GROUPS, parse_options};
use holdfast_mysql::dump::split_semi_sync;
use holdfast_mysql::handshake::Greeting;
use holdfast_mysql::login_path::parse_login_path;
use holdfast_mysql::packet::{self, Assembler};
use holdfast_mysql::response::{is_eof, parse_eof, parse_err, parse_ok};
use holdfast_mysql::resultset::{Column, RowRef};
use holdfast_mysql::script::{Flaw, Piece, Splitter};
use holdfast_mysql::{Secret, ServerVersion};

/// Longest packet that [`packets`] takes, so that memory stays small.
const PACKET_BYTES_MAX: u64 = 1 << 16;

/// A stream of packets. The first byte chooses how it is cut; the packets must be the same however that is done, and
/// come back when they are sent again. Each is read as every kind of answer.
pub fn packets(data: &[u8]) {
    let Some((step, stream)) = data.split_first() else { return };
    let whole = assemble(stream, stream.len().max(1));
    assert_eq!(assemble(stream, usize::from(*step) + 1), whole, "cuts must not matter");
    for payload in whole {
        let mut again = Vec::new();
        packet::encode(&payload, *step, &mut again);
        assert_eq!(assemble(&again, 7), [payload.clone()]);
        let _ = (parse_ok(&payload), parse_err(&payload), split_semi_sync(&payload));
        if is_eof(&payload) {
            let _ = parse_eof(&payload);
        }
    }
}

fn assemble(stream: &[u8], step: usize) -> Vec<Vec<u8>> {
    let mut assembler = Assembler::new(PACKET_BYTES_MAX);
    let mut packets = Vec::new();
    for piece in stream.chunks(step) {
        let mut rest = piece;
        while !rest.is_empty() {
            let Ok((taken, packet)) = assembler.feed(rest) else { return packets };
            assert!(taken > 0 || packet.is_some(), "bytes are taken");
            packets.extend(packet.map(|packet| packet.payload));
            rest = rest.get(taken..).unwrap_or_default();
        }
    }
    packets
}

/// A login: the first byte says what channel it is, then follow pieces of a u16 length each: the greeting and the
/// server's packets after it.
pub fn login(data: &[u8]) {
    let Some((choice, rest)) = data.split_first() else { return };
    let mut pieces = pieces(rest).into_iter();
    let Some(greeting) = pieces.next() else { return };
    let _ = ServerVersion::parse(&String::from_utf8_lossy(greeting));
    let (plugin, nonce) = match Greeting::parse(greeting) {
        Ok(greeting) => (greeting.auth_plugin, greeting.nonce),
        Err(_) => {
            (["caching_sha2_password", "client_ed25519"][usize::from(choice >> 7)].to_owned(), vec![1; 20])
        }
    };
    let channel = Channel { tls: choice & 1 != 0, local: choice & 2 != 0 };
    let secret = Secret::from("a password");
    let password = (choice & 4 == 0).then_some(&secret);
    let trust = if choice & 8 == 0 { KeyTrust::None } else { KeyTrust::AsSent };
    let mut exchange = Exchange::begin(password, channel, &plugin, &nonce).0.trusting(trust);
    for packet in pieces {
        match exchange.receive(packet) {
            Ok(Step::Send(answer)) => {
                let shown = answer.windows(10).any(|bytes| bytes == b"a password");
                assert!(!shown || channel.tls || channel.local, "the password is never sent in clear");
            }
            Ok(Step::Read) => {}
            Ok(Step::Done(_)) | Err(_) => return,
        }
    }
}

/// A result: the first byte is the number of columns; then follow pieces of a u16 length each: their definitions, the
/// others are rows.
pub fn results(data: &[u8]) {
    let Some((count, rest)) = data.split_first() else { return };
    let pieces = pieces(rest);
    let (definitions, rows) = pieces.split_at(pieces.len().min(usize::from(*count)));
    let columns: Vec<_> = definitions.iter().filter_map(|bytes| Column::parse(bytes).ok()).collect();
    for bytes in rows {
        let Ok(row) = RowRef::parse(&columns, bytes) else { continue };
        assert_eq!(row.values().len(), columns.len());
        let held: usize = row.values().iter().flatten().map(|value| value.len()).sum();
        assert!(held <= bytes.len(), "values can't be longer than their row");
        for (at, column) in columns.iter().enumerate() {
            let _ = (row.by_name(&column.name), row.text(at));
        }
    }
}

/// Pieces of a u16 length each; the last one may be cut short.
fn pieces(mut rest: &[u8]) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    while let Some((len, tail)) = rest.split_first_chunk::<2>() {
        let (piece, tail) = tail.split_at(tail.len().min(u16::from_le_bytes(*len).into()));
        pieces.push(piece);
        rest = tail;
    }
    pieces
}

/// The outer layer of CLONE, and a descriptor in it.
pub fn clone_response(data: &[u8]) {
    match Response::parse(data) {
        Ok(Response::Locators { locators, .. }) => {
            for locator in locators {
                let _ = InnoDbLocator::parse(&locator.bytes);
            }
        }
        Ok(Response::Descriptor { bytes, .. }) => clone_descriptor(bytes),
        _ => {}
    }
}

/// InnoDB's descriptors.
pub fn clone_descriptor(data: &[u8]) {
    let again = match Descriptor::parse(data) {
        Ok(Descriptor::Locator(locator)) => locator.encode(None),
        Ok(Descriptor::State(state)) => state.encode(),
        Ok(Descriptor::File(file)) => {
            assert!(!file.name.contains(&0) && file.name.len() <= data.len());
            return;
        }
        _ => return,
    };
    assert_eq!(Descriptor::parse(&again).ok(), Descriptor::parse(data).ok());
}

/// An option file.
pub fn option_file(data: &[u8]) {
    let Ok(options) = parse_options(data, Path::new("my.cnf"), &GROUPS) else { return };
    let _ = (options.endpoint(), format!("{options:?}"));
}

/// A file of `mysql_config_editor`.
pub fn login_path(data: &[u8]) {
    let _ = parse_login_path(data, Path::new("mylogin.cnf"), "shop");
}

/// A script of SQL: the first byte chooses how it is cut, and whether backslashes escape. However it is cut, its parts are
/// the same, and no statement is longer than allowed.
pub fn sql_script(data: &[u8]) {
    /// Longest statement that is allowed here.
    const LIMIT: usize = 1 << 12;
    let Some((choice, script)) = data.split_first() else { return };
    let split = |step: usize| -> (Vec<Piece>, Option<Flaw>) {
        let mut splitter = Splitter::new(LIMIT);
        splitter.backslash_escapes(choice & 1 == 0);
        let (mut pieces, mut chunks) = (Vec::new(), script.chunks(step));
        loop {
            match splitter.next_piece() {
                Err(flaw) => return (pieces, Some(flaw)),
                Ok(Some(piece)) => pieces.push(piece),
                Ok(None) => match chunks.next() {
                    Some(chunk) => splitter.feed(chunk),
                    None if splitter.is_ended() => return (pieces, None),
                    None => splitter.end(),
                },
            }
        }
    };
    let whole = split(script.len().max(1));
    for piece in &whole.0 {
        if let Piece::Statement { text, .. } = piece {
            assert!(!text.is_empty());
        }
    }
    // A statement or comment that is too long is noticed earlier or later, as the bytes come.
    if script.len() <= LIMIT {
        assert_eq!(split(usize::from(choice >> 1) + 1), whole, "cuts must not matter");
    }
}
