//! Which block a changed block should be stored against: a model with the store's own settings of zstd, one block at a
//! time, no repository. It counts bytes of payloads alone, so its figures are the same on any machine.

use zstd::bulk::Compressor;
use zstd::zstd_safe::{CCtx, CParameter, ParamSwitch};

use super::Failed;
use super::tables::Tables;
use holdfast_store::format::limits::BLOCK_BYTES;

/// A rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Against the block it replaces; whole once the chain is full.
    Chain,
    /// Against the block it replaces; once the chain is full, against its whole root, until that takes half a block.
    Root,
    /// Against the block it replaces; once the chain is full, against the deepest link from which the delta is not
    /// larger than this factor, once for each link given up, times the chain's smallest delta.
    Levels(usize),
}

/// What a rule cost.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// Bytes of all payloads behind the first generation.
    pub added_bytes: u64,
    /// Payloads behind the first generation.
    pub payloads: u64,
    /// Bytes that a restore of the last generation reads.
    pub last_bytes: u64,
    /// Payloads that it reads.
    pub last_payloads: u64,
}

struct Frame {
    bytes: usize,
    plain: Vec<u8>,
}

/// One rule over the blocks of a folder.
pub struct Model {
    rule: Rule,
    depth: usize,
    /// For each block, its chain: the whole one first.
    chains: Vec<Vec<Frame>>,
    whole: Compressor<'static>,
    delta: CCtx<'static>,
    room: Vec<u8>,
    outcome: Outcome,
}

impl Model {
    /// A model that stores the tables as they are now; chains of `depth` deltas at most.
    ///
    /// # Errors
    /// zstd has no memory.
    pub fn new(rule: Rule, depth: usize, tables: &Tables) -> Result<Self, Failed> {
        // As in the store's codec.
        let mut whole = Compressor::new(1)?;
        whole.set_parameter(CParameter::MinMatch(7))?;
        whole.set_parameter(CParameter::TargetLength(3))?;
        whole.set_parameter(CParameter::LiteralCompressionMode(ParamSwitch::Enable))?;
        let delta = CCtx::try_create().ok_or("no memory for zstd")?;
        let room = vec![0; 2 * BLOCK_BYTES as usize];
        let mut model =
            Self { rule, depth, chains: Vec::new(), whole, delta, room, outcome: Outcome::default() };
        for block in blocks(tables) {
            let bytes = model.whole(block)?;
            model.chains.push(vec![Frame { bytes, plain: block.to_vec() }]);
        }
        Ok(model)
    }

    /// Stores what changed.
    ///
    /// # Errors
    /// zstd fails.
    pub fn generation(&mut self, tables: &Tables) -> Result<(), Failed> {
        let mut chains = std::mem::take(&mut self.chains);
        for (chain, block) in chains.iter_mut().zip(blocks(tables)) {
            if chain.last().is_none_or(|frame| frame.plain != block) {
                let (links, bytes) = self.choose(chain, block)?;
                chain.truncate(links);
                chain.push(Frame { bytes, plain: block.to_vec() });
                self.outcome.payloads += 1;
                self.outcome.added_bytes += bytes as u64;
            }
        }
        self.chains = chains;
        Ok(())
    }

    /// What it cost so far.
    pub fn outcome(&self) -> Outcome {
        let frames = || self.chains.iter().flatten();
        Outcome {
            last_bytes: frames().map(|f| f.bytes as u64).sum(),
            last_payloads: frames().count() as u64,
            ..self.outcome
        }
    }

    /// How many links of the chain stay below the new block (none: it is stored whole), and its bytes.
    fn choose(&mut self, chain: &[Frame], block: &[u8]) -> Result<(usize, usize), Failed> {
        let half = block.len() / 2;
        let links: Vec<(usize, usize)> = match self.rule {
            _ if chain.len() <= self.depth => vec![(chain.len(), half)],
            Rule::Chain => Vec::new(),
            Rule::Root => vec![(1, half)],
            Rule::Levels(factor) => {
                let unit = chain.iter().skip(1).map(|f| f.bytes).min().unwrap_or(0);
                let limit = |links: usize| {
                    let given_up = u32::try_from(self.depth - links + 1).unwrap_or(u32::MAX);
                    factor.saturating_pow(given_up).saturating_mul(unit).min(half)
                };
                (1..=self.depth).rev().map(|links| (links, limit(links))).collect()
            }
        };
        for (links, limit) in links {
            let Some(base) = links.checked_sub(1).and_then(|at| chain.get(at)) else { continue };
            if let Some(bytes) = self.delta(block, &base.plain)?.filter(|bytes| *bytes <= limit) {
                let good = bytes < block.len() / 8;
                if good || bytes < self.whole(block)? / 4 * 3 {
                    return Ok((links, bytes));
                }
            }
        }
        Ok((0, self.whole(block)?))
    }

    fn whole(&mut self, block: &[u8]) -> Result<usize, Failed> {
        let bytes = self.whole.compress_to_buffer(block, &mut self.room)?;
        Ok(bytes.min(block.len()))
    }

    /// Bytes of a delta, its base's address among them; none if it takes more room than there is.
    fn delta(&mut self, block: &[u8], base: &[u8]) -> Result<Option<usize>, Failed> {
        const ADDRESS_BYTES: usize = 20;
        let made = self.delta.compress_using_dict(&mut self.room, block, base, 1);
        Ok(made.ok().map(|bytes| bytes + ADDRESS_BYTES))
    }
}

fn blocks(tables: &Tables) -> impl Iterator<Item = &[u8]> {
    tables.files().flat_map(|(_, bytes)| bytes.chunks(BLOCK_BYTES as usize))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::Churn;

    fn outcome(rule: Rule, depth: usize) -> Outcome {
        let mut tables = Tables::new(1, 64, 3);
        let mut model = Model::new(rule, depth, &tables).unwrap();
        for _ in 0..12 {
            tables.age(300, Churn::Uniform);
            model.generation(&tables).unwrap();
        }
        model.outcome()
    }

    #[test]
    fn a_deeper_chain_stores_less_and_leaves_more_to_read() {
        let [none, one, four] = [0, 1, 4].map(|depth| outcome(Rule::Chain, depth));
        assert_eq!((none.payloads, none.last_payloads), (one.payloads, 16));
        assert!(none.added_bytes > one.added_bytes && one.added_bytes > four.added_bytes);
        assert!(four.last_payloads > one.last_payloads);
    }

    #[test]
    fn a_rule_keeps_to_its_depth() {
        for rule in [Rule::Chain, Rule::Root, Rule::Levels(3)] {
            let outcome = outcome(rule, 2);
            assert!(outcome.last_payloads <= 16 * 3, "{rule:?}: {outcome:?}");
        }
    }
}
