//! Framing: a logical packet travels as frames of at most 16 MiB - 1 bytes, each with a 4-byte header
//! (u24 length, u8 sequence number). A frame of exactly 0xffffff bytes is followed by another one.
//!
//! Source: MySQL's documentation of the classic protocol, "Protocol::Packet".

use crate::error::{Error, Result};

/// The longest payload of one frame.
pub const FRAME_PAYLOAD_MAX: usize = 0xff_ffff;

/// The longest logical packet taken when the caller sets no other limit: the servers' own ceiling of
/// `max_allowed_packet` (1 GiB) plus room for headers.
pub const PACKET_BYTES_MAX: u64 = (1 << 30) + (1 << 16);

/// Bytes before the payload of a frame.
pub const HEADER_LEN: usize = 4;

/// Appends `payload` as frames; returns the sequence number after the last one.
pub fn encode(payload: &[u8], mut seq: u8, out: &mut Vec<u8>) -> u8 {
    let mut rest = payload;
    loop {
        let (frame, tail) = rest.split_at(rest.len().min(FRAME_PAYLOAD_MAX));
        let [a, b, c, _] = (frame.len() as u32).to_le_bytes();
        out.extend_from_slice(&[a, b, c, seq]);
        out.extend_from_slice(frame);
        seq = seq.wrapping_add(1);
        rest = tail;
        // A payload of an exact multiple ends with an empty frame.
        if frame.len() < FRAME_PAYLOAD_MAX {
            return seq;
        }
    }
}

/// Sequence number and payload of the packet at the front of `input`, if it is here whole, in one frame.
#[must_use]
pub fn whole(input: &[u8]) -> Option<(u8, &[u8])> {
    let ([a, b, c, seq], rest) = input.split_first_chunk::<HEADER_LEN>()?;
    let len = u32::from_le_bytes([*a, *b, *c, 0]) as usize;
    let payload = rest.get(..len).filter(|_| len < FRAME_PAYLOAD_MAX)?;
    Some((*seq, payload))
}

/// One whole logical packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Sequence number of its first frame.
    pub first_seq: u8,
    /// Sequence number of its last frame.
    pub last_seq: u8,
    /// The frames' payloads joined.
    pub payload: Vec<u8>,
}

/// Puts logical packets together from bytes as they come.
///
/// Memory grows with the bytes that really came, never with a length that a header only claims.
#[derive(Debug)]
pub struct Assembler {
    limit: u64,
    header: [u8; HEADER_LEN],
    header_len: usize,
    frame_left: usize,
    frame_full: bool,
    first_seq: Option<u8>,
    last_seq: u8,
    payload: Vec<u8>,
}

impl Assembler {
    /// An assembler that refuses packets longer than `limit` bytes.
    #[must_use]
    pub fn new(limit: u64) -> Self {
        Self {
            limit,
            header: [0; HEADER_LEN],
            header_len: 0,
            frame_left: 0,
            frame_full: false,
            first_seq: None,
            last_seq: 0,
            payload: Vec::new(),
        }
    }

    /// Sets another limit for packets that begin from now on.
    pub fn set_limit(&mut self, limit: u64) {
        self.limit = limit;
    }

    /// Gives a packet's buffer back, to be used for the next one.
    pub fn recycle(&mut self, mut buffer: Vec<u8>) {
        if self.payload.capacity() < buffer.capacity() && self.payload.is_empty() && self.first_seq.is_none()
        {
            buffer.clear();
            self.payload = buffer;
        }
    }

    /// The longest packet that is taken.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// True between packets.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.first_seq.is_none() && self.header_len == 0
    }

    /// Takes bytes from the front of `input` up to the end of one packet. Returns how many were taken and
    /// the packet if it is whole.
    pub fn feed(&mut self, input: &[u8]) -> Result<(usize, Option<Packet>)> {
        let mut taken = 0;
        loop {
            if self.header_len < HEADER_LEN {
                taken += self.feed_header(input.get(taken..).unwrap_or_default())?;
                if self.header_len < HEADER_LEN {
                    return Ok((taken, None));
                }
            }
            let rest = input.get(taken..).unwrap_or_default();
            let chunk = rest.get(..self.frame_left.min(rest.len())).unwrap_or_default();
            self.payload.extend_from_slice(chunk);
            self.frame_left -= chunk.len();
            taken += chunk.len();
            if self.frame_left > 0 {
                return Ok((taken, None));
            }
            self.header_len = 0;
            if !self.frame_full {
                return Ok((taken, Some(self.finish())));
            }
        }
    }

    fn feed_header(&mut self, input: &[u8]) -> Result<usize> {
        let mut taken = 0;
        for (slot, &byte) in self.header.iter_mut().skip(self.header_len).zip(input) {
            *slot = byte;
            taken += 1;
        }
        self.header_len += taken;
        if self.header_len == HEADER_LEN {
            self.start_frame()?;
        }
        Ok(taken)
    }

    fn start_frame(&mut self) -> Result<()> {
        let [a, b, c, seq] = self.header;
        let len = u32::from_le_bytes([a, b, c, 0]) as usize;
        if self.first_seq.is_some() && seq != self.last_seq.wrapping_add(1) {
            return Err(Error::protocol(
                "a packet of several frames",
                format!("frame number {}", self.last_seq.wrapping_add(1)),
                format!("{seq}"),
            ));
        }
        let whole = self.payload.len() as u64 + len as u64;
        if whole > self.limit {
            return Err(Error::TooLarge { what: "a packet from the server", got: whole, limit: self.limit });
        }
        self.first_seq.get_or_insert(seq);
        self.last_seq = seq;
        self.frame_left = len;
        self.frame_full = len == FRAME_PAYLOAD_MAX;
        Ok(())
    }

    fn finish(&mut self) -> Packet {
        Packet {
            first_seq: self.first_seq.take().unwrap_or_default(),
            last_seq: self.last_seq,
            payload: std::mem::take(&mut self.payload),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn feed_in_pieces(assembler: &mut Assembler, bytes: &[u8], piece: usize) -> Vec<Packet> {
        let mut packets = Vec::new();
        for chunk in bytes.chunks(piece) {
            let mut rest = chunk;
            while !rest.is_empty() {
                let (taken, packet) = assembler.feed(rest).unwrap();
                rest = &rest[taken..];
                packets.extend(packet);
            }
        }
        packets
    }

    proptest! {
        #[test]
        fn packets_come_back_however_the_bytes_are_cut(
            payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 1..6),
            piece in 1usize..50,
        ) {
            let mut bytes = Vec::new();
            let mut seq = 0;
            for payload in &payloads {
                seq = encode(payload, seq, &mut bytes);
            }
            let mut assembler = Assembler::new(PACKET_BYTES_MAX);
            let got: Vec<_> =
                feed_in_pieces(&mut assembler, &bytes, piece).into_iter().map(|p| p.payload).collect();
            prop_assert_eq!(&got, &payloads);
            prop_assert!(assembler.is_idle());

            // In place: each packet that is whole, and nothing of one that is cut.
            let mut rest = bytes.as_slice();
            for (number, payload) in payloads.iter().enumerate() {
                let end = HEADER_LEN + payload.len();
                prop_assert_eq!(whole(&rest[..end - 1]), None);
                prop_assert_eq!(whole(rest), Some((number as u8, payload.as_slice())));
                rest = &rest[end..];
            }
        }
    }

    #[test]
    fn packets_around_16_mib_come_back_whole() {
        for len in [FRAME_PAYLOAD_MAX - 1, FRAME_PAYLOAD_MAX, FRAME_PAYLOAD_MAX + 1, 2 * FRAME_PAYLOAD_MAX] {
            let payload: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
            let mut bytes = Vec::new();
            let next = encode(&payload, 250, &mut bytes);
            let mut assembler = Assembler::new(PACKET_BYTES_MAX);
            let got = feed_in_pieces(&mut assembler, &bytes, 1 << 20);
            assert_eq!(got.len(), 1, "length {len}");
            assert_eq!(
                whole(&bytes).is_some(),
                len < FRAME_PAYLOAD_MAX,
                "length {len}: of one frame or of several"
            );
            assert_eq!(got[0].payload, payload);
            assert_eq!(got[0].last_seq.wrapping_add(1), next);
        }
    }

    #[test]
    fn a_packet_over_the_limit_is_refused_before_it_is_stored() {
        let mut assembler = Assembler::new(100);
        assert!(matches!(assembler.feed(&[101, 0, 0, 0]), Err(Error::TooLarge { got: 101, .. })));
    }

    #[test]
    fn a_frame_out_of_order_is_an_error() {
        let mut bytes = Vec::new();
        encode(&vec![7; FRAME_PAYLOAD_MAX + 5], 0, &mut bytes);
        bytes[HEADER_LEN + FRAME_PAYLOAD_MAX + 3] = 9;
        assert!(Assembler::new(PACKET_BYTES_MAX).feed(&bytes).is_err());
    }
}
