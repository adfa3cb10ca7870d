//! From rows to medians, and to ratios within rounds.

use crate::row::Row;

/// A figure of a row.
pub type Figure = fn(&Row) -> Option<f64>;

/// The middle of some numbers and how far they lie apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub min: f64,
    pub median: f64,
    pub max: f64,
}

impl Spread {
    pub fn of(mut numbers: Vec<f64>) -> Option<Self> {
        numbers.sort_by(f64::total_cmp);
        let (min, max) = (*numbers.first()?, *numbers.last()?);
        let middle = numbers.len() / 2;
        let median = if numbers.len() % 2 == 1 {
            numbers[middle]
        } else {
            f64::midpoint(numbers[middle - 1], numbers[middle])
        };
        Some(Self { min, median, max })
    }
}

/// The turns of one workload with one number of tasks.
pub struct Group<'a> {
    pub workload: &'a str,
    pub tasks: usize,
    rows: Vec<&'a Row>,
    /// Whether no round counts; then all turns without an error do.
    pub inconclusive: bool,
}

/// The groups, in the order in which they were measured.
pub fn groups(rows: &[Row]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for row in rows {
        let (workload, tasks) = (row.workload.as_str(), row.tasks);
        let known =
            groups.iter_mut().find(|group| group.workload == workload && group.tasks == tasks);
        match known {
            Some(group) => group.rows.push(row),
            None => groups.push(Group { workload, tasks, rows: vec![row], inconclusive: false }),
        }
    }
    for group in &mut groups {
        group.inconclusive = !group.rows.iter().any(|row| row.kept);
        let inconclusive = group.inconclusive;
        group.rows.retain(|row| row.kept || inconclusive && row.errors == 0);
    }
    groups
}

impl Group<'_> {
    /// Returns the number of rounds in the group.
    pub fn rounds(&self) -> usize {
        let mut rounds: Vec<usize> = self.rows.iter().map(|row| row.round).collect();
        rounds.sort_unstable();
        rounds.dedup();
        rounds.len()
    }

    /// Their names, always in the same order.
    pub fn contenders(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for row in &self.rows {
            if !names.contains(&row.contender.as_str()) {
                names.push(&row.contender);
            }
        }
        names
    }

    /// A figure of one contender over all rounds.
    pub fn figure(&self, contender: &str, figure: Figure) -> Option<Spread> {
        let of = self.rows.iter().filter(|row| row.contender == contender);
        Spread::of(of.filter_map(|row| figure(row)).collect())
    }

    /// A figure of `ours` divided by that of `rival` in the same round.
    pub fn ratio(&self, ours: &str, rival: &str, figure: Figure) -> Option<Spread> {
        Spread::of(self.ratios(ours, rival, figure))
    }

    /// Returns the ratio of every round.
    pub fn ratios(&self, ours: &str, rival: &str, figure: Figure) -> Vec<f64> {
        self.compared(ours, rival, figure, |own, other| own / other)
    }

    /// Returns the difference of every round.
    pub fn differences(&self, ours: &str, rival: &str, figure: Figure) -> Vec<f64> {
        self.compared(ours, rival, figure, |own, other| own - other)
    }

    fn compared(
        &self,
        ours: &str,
        rival: &str,
        figure: Figure,
        compare: impl Fn(f64, f64) -> f64,
    ) -> Vec<f64> {
        let find = |round, name: &str| {
            self.rows.iter().find(|row| row.round == round && row.contender == name)
        };
        let own = self.rows.iter().filter(|row| row.contender == ours);
        let compared = own.filter_map(|row| {
            let compared = compare(figure(row)?, figure(find(row.round, rival)?)?);
            compared.is_finite().then_some(compared)
        });
        compared.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(contender: &str, round: usize, ops: f64, kept: bool) -> Row {
        Row { ops_per_s: Some(ops), kept, ..Row::new("get", 64, contender, round) }
    }

    #[test]
    fn median_is_the_middle_or_the_mean_of_the_two() {
        let spread = |numbers: &[f64]| Spread::of(numbers.to_vec());
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[3.0, 1.0, 9.0]), Some(Spread { min: 1.0, median: 3.0, max: 9.0 }));
        assert_eq!(spread(&[4.0, 2.0]), Some(Spread { min: 2.0, median: 3.0, max: 4.0 }));
    }

    #[test]
    fn ratios_are_taken_within_a_round_that_counts() {
        let rows = [
            row("ours", 0, 10.0, true),
            row("rival", 0, 5.0, true),
            row("ours", 1, 100.0, false),
            row("rival", 1, 1.0, false),
            row("rival", 2, 20.0, true),
            row("ours", 2, 20.0, true),
        ];
        let groups = groups(&rows);
        let [group] = &groups[..] else { panic!("one group") };
        let ratio = group.ratio("ours", "rival", |row| row.ops_per_s);
        assert_eq!(ratio, Some(Spread { min: 1.0, median: 1.5, max: 2.0 }));
        assert_eq!((group.rounds(), group.inconclusive), (2, false));
        assert_eq!(group.contenders(), ["ours", "rival"]);
    }

    #[test]
    fn rounds_are_inconclusive_without_a_good_one() {
        let rows = [row("ours", 0, 10.0, false), row("rival", 0, 5.0, false)];
        let groups = groups(&rows);
        assert!(groups[0].inconclusive);
        assert!(groups[0].ratio("ours", "rival", |row| row.ops_per_s).is_some());
    }
}
