//! One connection's stream of a clone: what each message means, apart from where it comes from.

use holdfast_mysql::clone::descriptor::{DataDescriptor, Descriptor, FileDescriptor, State, StateDescriptor};
use holdfast_mysql::clone::rpc::{ENGINE_INNODB, Response};

use crate::error::Error;

/// Longest stretch of a file in one message: 64 pages of 64 KiB.
const DATA_BYTES_MAX: u32 = 4 << 20;

/// What a connection's stream says, in order.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said<'a> {
    /// A sign of life, or something that needs no answer.
    Nothing,
    /// A stage begins on this connection.
    Begins(StateDescriptor),
    /// A stage ends on this connection.
    Ends(StateDescriptor),
    /// A file.
    File(Box<FileDescriptor>),
    /// Bytes of a file.
    Bytes(DataDescriptor, &'a [u8]),
    /// The stream is over.
    Over,
}

/// Puts a descriptor and the bytes that follow it together.
#[derive(Debug, Default)]
pub(super) struct Stream {
    awaited: Option<DataDescriptor>,
}

impl Stream {
    /// Takes the next message.
    pub(super) fn take<'a>(&mut self, response: Response<'a>) -> Result<Said<'a>, Error> {
        if let Some(data) = self.awaited.take() {
            return match response {
                Response::Data(bytes) if bytes.len() == data.len as usize => Ok(Said::Bytes(data, bytes)),
                Response::Data(bytes) => {
                    Err(wrong(format!("{} bytes of a file", data.len), bytes.len().to_string()))
                }
                other => Err(wrong("the bytes of a file", shown(&other))),
            };
        }
        match response {
            Response::Descriptor { engine: ENGINE_INNODB, locator_index: _, bytes } => {
                self.descriptor(Descriptor::parse(bytes)?)
            }
            Response::Descriptor { engine, .. } => {
                Err(wrong("InnoDB's descriptor (engine 12)", format!("engine {engine}")))
            }
            Response::Complete => Ok(Said::Over),
            other => Err(wrong("a descriptor", shown(&other))),
        }
    }

    fn descriptor<'a>(&mut self, descriptor: Descriptor) -> Result<Said<'a>, Error> {
        Ok(match descriptor {
            Descriptor::Task(_) => Said::Nothing,
            Descriptor::State(state) if state.ack => Said::Nothing,
            Descriptor::State(state) if state.start => Said::Begins(state),
            Descriptor::State(state) => Said::Ends(state),
            Descriptor::File(file) => Said::File(Box::new(file)),
            Descriptor::Data(data) => {
                if data.len > DATA_BYTES_MAX {
                    let (got, limit) = (u64::from(data.len), u64::from(DATA_BYTES_MAX));
                    return Err(Error::TooMany {
                        what: "bytes of a file in one message of the clone",
                        got,
                        limit,
                    });
                }
                if !matches!(data.state, State::FileCopy | State::PageCopy | State::RedoCopy) {
                    return Err(wrong("bytes in FILE, PAGE or REDO COPY", format!("{:?}", data.state)));
                }
                self.awaited = Some(data);
                Said::Nothing
            }
            Descriptor::Locator(_) => {
                return Err(wrong("a task, state, file or data descriptor", "a locator".to_owned()));
            }
        })
    }
}

fn shown(response: &Response<'_>) -> String {
    let mut text = format!("{response:?}");
    text.truncate(text.floor_char_boundary(100));
    text
}

fn wrong(expected: impl Into<String>, got: String) -> Error {
    Error::Malformed { place: "the clone's stream".to_owned(), expected: expected.into(), got }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(bytes: &[u8]) -> Response<'_> {
        Response::Descriptor { engine: ENGINE_INNODB, locator_index: 0, bytes }
    }

    fn data(state: u32, len: u32) -> Vec<u8> {
        let mut out = Vec::new();
        for word in [100u32, 52, 5, state, 0, 1, 1, 7, len] {
            out.extend(word.to_be_bytes());
        }
        out.extend(1_048_576u64.to_be_bytes());
        out.extend(2_097_152u64.to_be_bytes());
        out
    }

    #[test]
    fn bytes_belong_to_the_descriptor_before_them() {
        let mut stream = Stream::default();
        let head = data(2, 5);
        assert_eq!(stream.take(state(&head)).unwrap(), Said::Nothing);
        match stream.take(Response::Data(b"12345")).unwrap() {
            Said::Bytes(data, bytes) => {
                assert_eq!((data.file_index, data.offset, bytes), (7, 1_048_576, b"12345".as_slice()));
            }
            other => panic!("{other:?}"),
        }
        // Not announced; of another length; something else between.
        assert!(stream.take(Response::Data(b"12345")).is_err());
        stream.take(state(&head)).unwrap();
        assert!(stream.take(Response::Data(b"1234")).is_err());
        stream.take(state(&head)).unwrap();
        assert!(stream.take(Response::Complete).is_err());
    }

    #[test]
    fn lengths_states_and_engines_that_cannot_be_are_refused() {
        let mut stream = Stream::default();
        assert!(matches!(stream.take(state(&data(2, u32::MAX))), Err(Error::TooMany { .. })));
        assert!(stream.take(state(&data(1, 5))).is_err());
        let other = Response::Descriptor { engine: 42, locator_index: 0, bytes: &[] };
        assert!(stream.take(other).is_err());
    }

    #[test]
    fn signs_of_life_say_nothing() {
        let beat = StateDescriptor {
            state: State::PageCopy,
            task: 0,
            chunks: 0,
            files: 0,
            estimate: 0,
            estimate_disk: 0,
            start: false,
            ack: true,
        };
        assert_eq!(Stream::default().take(state(&beat.encode())).unwrap(), Said::Nothing);
        let end = StateDescriptor { ack: false, ..beat };
        assert_eq!(Stream::default().take(state(&end.encode())).unwrap(), Said::Ends(end));
    }
}
