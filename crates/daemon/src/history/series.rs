//! Many minutes as few points: least, middle and most of each metric in equal stretches of time.

use super::ring::Values;
use serde::Serialize;

/// The minutes that were asked for, in equal stretches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// The first minute.
    pub from: u32,
    /// Minutes of one stretch.
    pub step: u32,
    /// Stretches.
    pub points: u32,
}

impl Grid {
    /// The minutes `from..=to` in at most so many stretches.
    #[must_use]
    pub fn new(from: u32, to: u32, points_max: u32) -> Self {
        let minutes = to.saturating_sub(from).saturating_add(1);
        let step = minutes.div_ceil(points_max.max(1)).max(1);
        Self { from, step, points: minutes.div_ceil(step) }
    }

    fn of(&self, minute: u32) -> Option<usize> {
        let point = minute.checked_sub(self.from)? / self.step;
        (point < self.points).then_some(point as usize)
    }
}

/// One metric over the grid; `null` where nothing is known.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Series {
    /// Its name.
    pub metric: &'static str,
    /// Least of each stretch.
    pub min: Vec<Option<f32>>,
    /// Mean of the minutes that are known.
    pub avg: Vec<Option<f32>>,
    /// Most of each stretch.
    pub max: Vec<Option<f32>>,
}

/// What is known of one stretch so far.
#[derive(Clone, Copy, Debug)]
struct Point {
    min: f32,
    max: f32,
    sum: f64,
    known: u32,
}

const NOTHING: Point = Point { min: f32::INFINITY, max: f32::NEG_INFINITY, sum: 0.0, known: 0 };

/// Gathers chosen metrics over a grid.
#[derive(Debug)]
pub struct Gathered {
    grid: Grid,
    /// Name and place among the values, and a point for each stretch.
    metrics: Vec<(&'static str, usize, Vec<Point>)>,
}

impl Gathered {
    /// Of the metrics with these names and places among the values.
    #[must_use]
    pub fn new(grid: Grid, metrics: &[(&'static str, usize)]) -> Self {
        let points = || vec![NOTHING; grid.points as usize];
        Self { grid, metrics: metrics.iter().map(|(name, at)| (*name, *at, points())).collect() }
    }

    /// Takes a minute's values; those that are no number are not known.
    pub fn add(&mut self, minute: u32, values: &Values) {
        let Some(at) = self.grid.of(minute) else { return };
        for (_, place, points) in &mut self.metrics {
            let (Some(value), Some(point)) = (values.get(*place), points.get_mut(at)) else { continue };
            if !value.is_finite() {
                continue;
            }
            point.min = point.min.min(*value);
            point.max = point.max.max(*value);
            point.sum += f64::from(*value);
            point.known += 1;
        }
    }

    /// All that was gathered.
    #[must_use]
    pub fn series(self) -> Vec<Series> {
        let of = |points: &[Point], value: fn(&Point) -> f32| -> Vec<Option<f32>> {
            points.iter().map(|point| (point.known > 0).then(|| value(point))).collect()
        };
        let metrics = self.metrics.into_iter();
        metrics
            .map(|(metric, _, points)| Series {
                metric,
                min: of(&points, |p| p.min),
                avg: of(&points, |p| (p.sum / f64::from(p.known)) as f32),
                max: of(&points, |p| p.max),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::ring::VALUES;

    #[test]
    fn a_stretch_has_least_middle_and_most_of_what_is_known_and_nothing_is_made_up() {
        let grid = Grid::new(100, 109, 3);
        assert_eq!((grid.step, grid.points), (4, 3));
        let mut gathered = Gathered::new(grid, &[("a", 0), ("b", 1)]);
        let mut add = |minute: u32, a: f32, b: f32| {
            let mut values = [f32::NAN; VALUES];
            (values[0], values[1]) = (a, b);
            gathered.add(minute, &values);
        };
        add(99, 1e9, 1e9);
        add(100, 1.0, f32::NAN);
        add(103, 4.0, f32::INFINITY);
        add(104, 7.0, 2.0);
        add(110, 5.0, 3.0);
        add(112, 1e9, 1e9);
        let all = gathered.series();
        assert_eq!((all[0].metric, &all[0].min[..]), ("a", &[Some(1.0), Some(7.0), Some(5.0)][..]));
        assert_eq!(all[0].avg, [Some(2.5), Some(7.0), Some(5.0)]);
        assert_eq!(all[0].max, [Some(4.0), Some(7.0), Some(5.0)]);
        assert_eq!(all[1].avg, [None, Some(2.0), Some(3.0)]);
        let text = serde_json::to_string(&all[1]).unwrap();
        assert!(text.contains("\"min\":[null,2.0,3.0]"), "{text}");
    }

    #[test]
    fn a_grid_has_at_most_so_many_points_and_covers_every_minute() {
        for (from, to, most) in [(0, 0, 1), (0, 43_199, 300), (7, 7, 500), (5, 1444, 1440), (9, 3, 0)] {
            let grid = Grid::new(from, to, most);
            assert!(grid.points <= most.max(1) && grid.points >= 1, "{grid:?}");
            assert_eq!(grid.of(from), Some(0));
            assert!(to < from || grid.of(to) == Some(grid.points as usize - 1), "{grid:?}");
        }
    }
}
