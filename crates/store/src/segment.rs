//! Segments: written front to back by `writer.rs`, read by address through `view.rs`.

mod ahead;
mod carrier;
mod view;
mod writer;

pub(crate) use carrier::CarrierWriter;
pub use view::Healing;
pub(crate) use view::{FooterCache, Located, SegmentView, open_frame};
pub(crate) use writer::{NewFrame, SealedSegment, SegmentWriter, detached_footer, seal_footer};
