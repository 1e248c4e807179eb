//! The tables: medians, spreads, ratios, and where they are kept.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context, Result};

use crate::Bench;
use crate::machine;
use crate::peers::{Kind, Program};
use crate::rows::{Aim, Figure, Row, SUMMARY};

/// Between these lines of a page, everything is written by us.
const BEGIN: &str = "<!-- Begin: written by `make bench`. -->\n";
const END: &str = "<!-- End: written by `make bench`. -->\n";

pub(crate) struct Report {
    about: String,
    kinds: Vec<Kind>,
    rows: Vec<(&'static Row, Vec<Measurement>)>,
}

struct Measurement {
    kind: Kind,
    round: usize,
    values: Vec<f64>,
}

impl Report {
    pub(crate) fn new(bench: &Bench, programs: &[Program]) -> Self {
        let cores = bench.args.cores;
        let versions: Vec<_> = programs.iter().map(|program| format!("{} {}", program.kind, program.version)).collect();
        let about = format!(
            "{}, {}; {}. Proxies on core {}, load on core {}, backend on core {}; medians of {} rounds \
             (lowest to highest), {} s each{}.",
            machine::about(),
            if cfg!(debug_assertions) { "not optimised" } else { "release profile with jemalloc" },
            versions.join(", "),
            cores.proxy,
            cores.load,
            cores.backend,
            bench.args.rounds,
            bench.args.seconds,
            bench.args.scale_shown(),
        );
        Report { about, kinds: programs.iter().map(|program| program.kind).collect(), rows: Vec::new() }
    }

    pub(crate) fn add(&mut self, row: &'static Row, kind: Kind, round: usize, values: &[f64]) {
        assert_eq!(row.figures.len(), values.len(), "{}", row.name);
        let measurement = Measurement { kind, round, values: values.to_vec() };
        match self.rows.last_mut() {
            Some((last, measurements)) if last.name == row.name => measurements.push(measurement),
            _ => self.rows.push((row, vec![measurement])),
        }
    }

    /// Prints the tables, and keeps them if asked to.
    pub(crate) fn finish(&self, bench: &Bench) -> Result<()> {
        let page = format!("{}\n\n{}\nBeside these:\n\n{}", self.about, self.aims(), self.contexts());
        println!("{page}");
        if bench.args.write {
            let whole = bench.args.is_whole();
            let renewed = (!whole).then(|| self.renewed());
            keep("docs/benchmarks.md", &page, renewed.as_deref())?;
            keep("README.md", &format!("{}\n{}", self.summary(), self.about), renewed.as_deref())?;
        }
        Ok(())
    }

    /// What is said of rows that were measured alone.
    fn renewed(&self) -> String {
        let names: Vec<_> = self.rows.iter().map(|(row, _)| format!("`{}`", row.name)).collect();
        format!("Measured again since, {}: {}", names.join(", "), self.about)
    }

    /// The figures with an aim, one to a line.
    fn aims(&self) -> String {
        let mut table = self.head(&["Floodway to the best other", "Aim", "Met"]);
        for (row, at, figure) in self.figures().filter(|(.., figure)| figure.aim != Aim::Context) {
            let (ours, best) = (self.median(row, at, Kind::Floodway), self.best(row, at));
            let ratio = best.and_then(|(kind, _)| self.ratio(row, at, kind));
            let equal = ours.zip(best).is_some_and(|(ours, (_, best))| ours <= best);
            let (aim, met) = match figure.aim {
                Aim::OfBest(most) => {
                    (format!("≤ {most:.1} ×"), ratio.map(|ratio| ratio <= most).or(best.map(|_| equal)))
                }
                Aim::Below(kind) => {
                    (format!("below {kind}"), ours.zip(self.median(row, at, kind)).map(|(ours, theirs)| ours < theirs))
                }
                Aim::AtMost(most) => (format!("≤ {most} {}", figure.unit), ours.map(|ours| ours <= most)),
                Aim::Context => continue,
            };
            let met = met.map_or("", |met| if met { "yes" } else { "**no**" });
            let ratio = ratio.map_or(String::new(), |ratio| format!("{ratio:.2} ×"));
            let _ = writeln!(table, "{} {ratio} | {aim} | {met} |", self.cells(row, at, figure));
        }
        table
    }

    /// Floodway and the best other proxy, for those who want to know no more.
    fn summary(&self) -> String {
        let mut table = "| | Floodway | Best of the others |\n|---|---|---|\n".to_owned();
        for (row, at, figure) in self.figures().filter(|(row, ..)| SUMMARY.contains(&row.name)) {
            let Some(ours) = self.median(row, at, Kind::Floodway).filter(|_| figure.aim != Aim::Context) else {
                continue;
            };
            let best = self
                .best(row, at)
                .map_or(String::new(), |(kind, best)| format!("{} {} ({kind})", digits(best), figure.unit));
            let _ = writeln!(table, "| {} | {} {} | {best} |", figure.title, digits(ours), figure.unit);
        }
        table
    }

    fn median(&self, row: &Row, at: usize, kind: Kind) -> Option<f64> {
        spread(&self.values(row, at, kind)).map(|spread| spread.median)
    }

    fn best(&self, row: &Row, at: usize) -> Option<(Kind, f64)> {
        let others = self.kinds.iter().filter(|kind| **kind != Kind::Floodway);
        let medians = others.filter_map(|kind| Some((*kind, self.median(row, at, *kind)?)));
        medians.min_by(|one, other| one.1.total_cmp(&other.1))
    }

    /// How much of another's figure ours is: the median of what that was in each round. Whoever else uses the machine makes a round
    /// dear for all proxies, and so this says more than what the medians of each come to.
    fn ratio(&self, row: &Row, at: usize, other: Kind) -> Option<f64> {
        let of = |kind| self.measurements(row).filter(move |one| one.kind == kind);
        let pairs = of(Kind::Floodway).filter_map(|ours| Some((ours, of(other).find(|one| one.round == ours.round)?)));
        let ratios = pairs.map(|(ours, theirs)| ours.values[at] / theirs.values[at]).filter(|ratio| ratio.is_finite());
        spread(&ratios.collect::<Vec<_>>()).map(|spread| spread.median)
    }

    /// The figures that explain others.
    fn contexts(&self) -> String {
        let mut table = self.head(&[]);
        for (row, at, figure) in self.figures().filter(|(.., figure)| figure.aim == Aim::Context) {
            let _ = writeln!(table, "{}", self.cells(row, at, figure).trim_end());
        }
        table
    }

    fn head(&self, more: &[&str]) -> String {
        let kinds: Vec<_> = self.kinds.iter().map(Kind::to_string).collect();
        let columns: Vec<_> = kinds.iter().map(String::as_str).chain(more.iter().copied()).collect();
        format!("| | {} |\n|---|{}\n", columns.join(" | "), "---|".repeat(columns.len()))
    }

    fn cells(&self, row: &Row, at: usize, figure: &Figure) -> String {
        let mut line = format!("| {}, {} |", figure.title, figure.unit);
        for kind in &self.kinds {
            let cell = spread(&self.values(row, at, *kind)).map_or("".to_owned(), |spread| spread.to_string());
            let _ = write!(line, " {cell} |");
        }
        line
    }

    fn figures(&self) -> impl Iterator<Item = (&'static Row, usize, &'static Figure)> {
        self.rows.iter().flat_map(|(row, _)| row.figures.iter().enumerate().map(|(at, figure)| (*row, at, figure)))
    }

    fn values(&self, row: &Row, at: usize, kind: Kind) -> Vec<f64> {
        self.measurements(row).filter(|one| one.kind == kind).map(|one| one.values[at]).collect()
    }

    fn measurements(&self, row: &Row) -> impl Iterator<Item = &Measurement> {
        self.rows.iter().filter(move |(known, _)| known.name == row.name).flat_map(|(_, all)| all)
    }
}

struct Spread {
    lowest: f64,
    median: f64,
    highest: f64,
}

fn spread(values: &[f64]) -> Option<Spread> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let (lowest, highest) = (*sorted.first()?, *sorted.last()?);
    let median = (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) / 2.0;
    Some(Spread { lowest, median, highest })
}

impl std::fmt::Display for Spread {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.lowest == self.highest {
            return formatter.write_str(&digits(self.median));
        }
        write!(formatter, "{} ({} to {})", digits(self.median), digits(self.lowest), digits(self.highest))
    }
}

/// About three digits; whole numbers as they are.
fn digits(value: f64) -> String {
    match value.abs() {
        _ if value.fract() == 0.0 => format!("{value:.0}"),
        0.0..10.0 => format!("{value:.2}"),
        10.0..100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// Replaces what stands between the marks of a page; or, if `renewed` says what was measured, only the lines of that.
fn keep(page: &str, text: &str, renewed: Option<&str>) -> Result<()> {
    let path = format!("{}/{page}", env!("CARGO_MANIFEST_DIR"));
    let before = fs::read_to_string(&path)?;
    let marks = before.find(BEGIN).zip(before.find(END));
    let (begin, end) = marks.with_context(|| format!("{page} has no place for the table"))?;
    let (head, tail) = (&before[..begin + BEGIN.len()], &before[end..]);
    let text = match renewed {
        None => text.trim_end().to_owned(),
        Some(renewed) => format!("{}\n\n{renewed}", renew(before[head.len()..end].trim(), text)?),
    };
    fs::write(&path, format!("{head}\n{text}\n\n{tail}")).with_context(|| path.clone())
}

/// `before`, whose lines are those of `text` where both say something of the same figure.
fn renew(before: &str, text: &str) -> Result<String> {
    // The heads of tables, which name no figure, stay as they are.
    let figure = |line: &str| {
        Some(line.strip_prefix("| ")?.split_once(" | ")?.0.to_owned()).filter(|name| !name.starts_with('|'))
    };
    let mut lines: Vec<String> = before.lines().map(str::to_owned).collect();
    for line in text.lines() {
        let Some(name) = figure(line) else { continue };
        match lines.iter_mut().find(|old| figure(old).as_ref() == Some(&name)) {
            Some(old) => line.clone_into(old),
            None => anyhow::bail!("the table has no line of `{name}` yet; measure all rows first"),
        }
    }
    Ok(lines.join("\n"))
}
