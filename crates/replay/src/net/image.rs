//! Images of rows that carry some of the columns (`binlog_row_image` other than FULL), and how they add up.
//!
//! A column that an insert leaves out has its default, one that an update leaves out stays as it is: so
//! images of one row are laid over each other, and what is there is the union of their columns.
//! Which columns an image carries is a number here, the same for all images of a table.

use std::collections::HashMap;

use holdfast_binlog::columns::Columns;
use holdfast_binlog::rows::ImagePlan;

use super::catalogue::ColumnFacts;

/// Sets of columns of a table after which its window ends: each is an event of its own in every chunk.
pub(super) const SETS_MAX: usize = 256;

/// Columns that images carry, by number.
pub(crate) type SetId = u16;

/// A set of columns.
#[derive(Debug)]
struct Set {
    /// One bit each.
    present: Vec<u8>,
    plan: ImagePlan,
    /// Nothing is left out but what is computed.
    whole: bool,
}

/// All sets of columns that images of a table carry.
#[derive(Debug)]
pub(crate) struct Sets {
    columns: Columns,
    /// One bit for each computed column.
    computed: Vec<u8>,
    list: Vec<Set>,
    unions: HashMap<(SetId, SetId), SetId>,
}

impl Sets {
    pub(super) fn new(columns: &Columns, facts: &[ColumnFacts]) -> Self {
        let mut computed = vec![0u8; columns.len().div_ceil(8)];
        for (at, _) in facts.iter().enumerate().filter(|(_, column)| column.generated) {
            if let Some(byte) = computed.get_mut(at / 8) {
                *byte |= 1 << (at % 8);
            }
        }
        Self { columns: columns.clone(), computed, list: Vec::new(), unions: HashMap::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// The number of a set of columns: one bit each.
    pub(super) fn number(&mut self, present: &[u8]) -> SetId {
        let width = self.columns.len();
        let mut present = present.to_vec();
        // Bits behind the last column mean nothing.
        if let (Some(last), 1..) = (present.last_mut(), width % 8) {
            *last &= (1u8 << (width % 8)) - 1;
        }
        if let Some(at) = self.list.iter().position(|set| set.present == present) {
            return at as SetId;
        }
        let plan = ImagePlan::new(&self.columns, &present);
        let has = |at: usize, bits: &[u8]| bits.get(at / 8).is_some_and(|byte| byte >> (at % 8) & 1 == 1);
        let whole = (0..width).all(|at| has(at, &present) || has(at, &self.computed));
        self.list.push(Set { present, plan, whole });
        (self.list.len() - 1) as SetId
    }

    /// The columns of a set, one bit each.
    pub(super) fn present(&self, set: SetId) -> &[u8] {
        self.list.get(usize::from(set)).map(|set| set.present.as_slice()).unwrap_or_default()
    }

    /// Is nothing left out but what is computed?
    pub(super) fn is_whole(&self, set: SetId) -> bool {
        self.list.get(usize::from(set)).is_some_and(|set| set.whole)
    }

    /// Are values of this column computed from others?
    pub(super) fn is_computed(&self, column: u16) -> bool {
        let at = usize::from(column);
        self.computed.get(at / 8).is_some_and(|byte| byte >> (at % 8) & 1 == 1)
    }

    /// Do two images agree in the columns that both carry?
    pub(super) fn agree(&self, (a, a_image): (SetId, &[u8]), (b, b_image): (SetId, &[u8])) -> bool {
        if a == b {
            return a_image == b_image;
        }
        let (Some(a), Some(b)) = (self.list.get(usize::from(a)), self.list.get(usize::from(b))) else {
            return false;
        };
        let mut left = Vec::with_capacity(a.plan.columns().len());
        a.plan.visit(a_image, |column, cell| {
            left.push((column, cell));
            true
        });
        let (mut left, mut agree) = (left.into_iter().peekable(), true);
        b.plan.visit(b_image, |column, cell| {
            while left.next_if(|(other, _)| *other < column).is_some() {}
            agree &= left.next_if(|(other, _)| *other == column).is_none_or(|(_, other)| other == cell);
            agree
        });
        agree
    }

    /// What a row is when `over` is written over `under`: the columns of either.
    pub(super) fn overlay(
        &mut self,
        (under, image): (SetId, &[u8]),
        (over, newer): (SetId, &[u8]),
    ) -> (SetId, Vec<u8>) {
        let union = self.union(under, over);
        if union == over {
            return (over, newer.to_vec());
        }
        let plan = |set: SetId| self.list.get(usize::from(set)).map(|set| &set.plan);
        let (Some(all), Some(under), Some(over)) = (plan(union), plan(under), plan(over)) else {
            return (over, newer.to_vec());
        };
        let mut cells: HashMap<u16, Option<&[u8]>> = HashMap::with_capacity(all.columns().len());
        for (plan, image) in [(under, image), (over, newer)] {
            plan.visit(image, |column, cell| {
                cells.insert(column, cell);
                true
            });
        }
        let mut out = vec![0u8; all.columns().len().div_ceil(8)];
        for (at, column) in all.columns().iter().enumerate() {
            match cells.get(column).copied().flatten() {
                Some(cell) => out.extend_from_slice(cell),
                None => {
                    if let Some(byte) = out.get_mut(at / 8) {
                        *byte |= 1 << (at % 8);
                    }
                }
            }
        }
        (union, out)
    }

    fn union(&mut self, a: SetId, b: SetId) -> SetId {
        if a == b {
            return a;
        }
        if let Some(known) = self.unions.get(&(a, b)) {
            return *known;
        }
        let bits: Vec<u8> = self.present(a).iter().zip(self.present(b)).map(|(a, b)| a | b).collect();
        let union = self.number(&bits);
        self.unions.insert((a, b), union);
        union
    }

    /// The sets, each one bit a column.
    pub(super) fn into_list(self) -> Vec<Vec<u8>> {
        self.list.into_iter().map(|set| set.present).collect()
    }
}
