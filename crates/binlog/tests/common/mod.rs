//! Reads everything that can be read in a run of events: what hostile bytes must survive.

use holdfast_binlog::event::{Body, Event};
use holdfast_binlog::tables::TableCache;
use holdfast_binlog::transaction::Assembler;
use holdfast_binlog::{FormatDescription, Walker};

/// Walks over events without magic under the given format and looks at all that they hold.
/// Gives the number of events that parsed.
pub fn read_everything(bytes: &[u8], format: &FormatDescription) -> usize {
    let mut walker = Walker::resume(format.clone(), 4);
    let (mut tables, mut assembler) = (TableCache::default(), Assembler::new());
    let (mut rest, mut parsed) = (bytes, 0);
    while let Ok(Some(event)) = walker.step(rest) {
        rest = rest.get(event.raw.len()..).unwrap_or_default();
        let Some(format) = walker.format().cloned() else { break };
        if assembler.push(&event, &format).is_err() {
            assembler.reset();
        }
        let Ok(body) = event.parse(&format) else { continue };
        parsed += 1;
        look(&event, &body, &format, &mut tables, 0);
    }
    parsed
}

fn look(event: &Event<'_>, body: &Body<'_>, format: &FormatDescription, tables: &mut TableCache, depth: u32) {
    let mut scratch = Vec::new();
    match body {
        Body::Query(query) | Body::ExecuteLoad { query, .. } => {
            let _ = query.text(&mut scratch);
        }
        Body::TableMap(map) => {
            let _ = tables.insert(map);
            let _ = map.primary_key();
            let _ = map.column_names();
        }
        Body::Rows(rows) => {
            let Ok((_, plan)) = tables.plan(rows) else { return };
            let Ok(rows) = rows.inflated(&mut scratch) else { return };
            let mut key = Vec::new();
            let mut total = 0;
            for row in plan.rows(rows.data) {
                let Ok(row) = row else { break };
                total += row.bytes.len();
                if let Some(before) = row.before {
                    plan.first.visit(before, |_, _| true);
                }
                if let (Some(after), Some(images)) = (row.after, plan.after_plan()) {
                    images.visit(after, |_, _| true);
                    if let Some(extract) = images.key(images.columns()) {
                        extract.extract(images, after, &mut key);
                    }
                }
            }
            assert!(total <= rows.data.len(), "rows can't be longer than their event");
        }
        Body::Payload(payload) if depth == 0 => {
            let Ok(mut events) = payload.events(event, format) else { return };
            while let Ok(Some(event)) = events.next_event() {
                if let Ok(body) = event.parse(format) {
                    look(&event, &body, format, tables, 1);
                }
            }
        }
        _ => {}
    }
}
