//! The report.

use super::grid::Grid;
use super::summary::Names;
use super::{details, plots, scale, summary, words};
use crate::outcome::{Block, Machine, Outcome, Plan, ScaleOutcome};

/// All of it, with the plots by their names.
pub(super) fn report(outcome: &Outcome) -> String {
    let title = match outcome.blocks.is_empty() {
        true => "How Holdfast scales",
        false => "Holdfast beside its peers",
    };
    let mut text = format!("# {title}\n\n{}", machine(&outcome.machine));
    if !outcome.blocks.is_empty() {
        text += &format!("\n{}\n", plan(&outcome.plan));
    }
    for (index, block) in outcome.blocks.iter().enumerate() {
        text += &format!("\n## {}\n\n", block.title);
        text += &summary::grid(block, Names::Long).markdown();
        text += &format!("\n{}\n\n", summary::legend(block));
        text += &format!("![Rates]({})\n\n", plots::rates_file(index));
        text += &format!("![Latencies]({})\n", plots::latencies_file(index));
        text += &format!("\n### Who took part\n\n{}", columns(block).markdown());
        text += &failures(block);
        for job in &block.jobs {
            text +=
                &format!("\n### {}\n\n{}", job.job.title, details::servers(block, job).markdown());
            let processes = details::processes(block, job);
            if !processes.is_empty() {
                text += "\n<details><summary>Process by process</summary>\n\n";
                text += &processes.markdown();
                text += "\n</details>\n";
            }
        }
    }
    if let Some(outcome) = &outcome.scale {
        text += &scale_section(outcome);
    }
    text
}

fn machine(machine: &Machine) -> String {
    let mut grid = Grid::new(["machine", ""]).words(2);
    let [one, five, fifteen] = machine.load;
    let rows = [
        ("processor", format!("{} × {}", machine.cores, machine.cpu)),
        ("memory", words::size(machine.memory_bytes)),
        ("kernel", machine.kernel.clone()),
        ("disk", machine.disk.clone()),
        ("load at the start", format!("{one:.2}, {five:.2}, {fifteen:.2}")),
        ("started", format!("{} UTC", words::time(machine.started_unix_s))),
        ("commit", machine.commit.clone().unwrap_or_else(|| "unknown".to_owned())),
    ];
    let versions = machine.versions.iter().map(|(name, version)| (name.as_str(), version.clone()));
    for (name, value) in rows.into_iter().chain(versions) {
        grid.row(vec![name.to_owned(), value]);
    }
    grid.markdown()
}

fn plan(plan: &Plan) -> String {
    let rounds = times(plan.rounds);
    let seconds = plan.seconds;
    let (area, logged) = (words::size(plan.area_bytes), words::size(plan.logged_bytes));
    let mut text = format!(
        "Every job ran {rounds} for at least {seconds} s on {area} that had been written before; jobs with writes \
         until {logged} were written, or for {} s. What a server did in the background afterwards counts: its CPU time and \
         its writes are taken when it has come to rest. Client and servers shared the machine.",
        plan.seconds_max
    );
    if !plan.holdfast_args.is_empty() {
        text += &format!(" Holdfast was started with `{}`.", plan.holdfast_args.join(" "));
    }
    text
}

fn times(count: u32) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}

fn columns(block: &Block) -> Grid {
    let mut grid =
        Grid::new(["server", "copies", "acknowledged is durable", "version", "set-up"]).words(5);
    for column in &block.columns {
        let mut setup = column.setup.clone();
        if let Some(why) = &column.absent {
            setup = format!("**Took no part:** {why}");
        } else if let Some(why) = &column.no_syscalls {
            setup += &format!(". System calls were not counted: {why}");
        }
        grid.row(vec![
            column.title.clone(),
            column.copies.to_string(),
            if column.durable { "yes" } else { "no" }.to_owned(),
            column.version.clone().unwrap_or_else(|| words::NONE.to_owned()),
            setup,
        ]);
    }
    grid
}

fn failures(block: &Block) -> String {
    let mut text = String::new();
    for job in &block.jobs {
        for result in &job.results {
            let Some(why) = &result.failed else { continue };
            let good = result.samples.len();
            let title = &job.job.title;
            text += &format!("- {}, {title}, after {good} good rounds: `{why}`\n", result.column);
        }
    }
    if text.is_empty() { text } else { format!("\n### What failed\n\n{text}") }
}

fn scale_section(outcome: &ScaleOutcome) -> String {
    let mut text = format!("\n## Scale\n\n{}", scale::facts(outcome).markdown());
    for curve in &outcome.curves {
        text += &format!(
            "\n### {}\n\n![{}]({})\n\n",
            curve.title,
            curve.title,
            plots::curve_file(curve)
        );
        text += &format!("{}\n\n{}", curve.remark, scale::points(curve).markdown());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn says_who_is_missing_and_what_failed() {
        let text = report(&sample::outcome());
        assert!(text.contains("**Took no part:** not installed: ceph-osd"), "{text}");
        assert!(
            text.contains("- holdfast-x3, 4k random read QD1, after 1 good rounds: `lost`"),
            "{text}"
        );
        assert!(text.contains("System calls were not counted: no tracepoints"));
    }

    #[test]
    fn describes_the_machine_and_the_plan() {
        let text = report(&sample::outcome());
        for words in [
            "| processor | 2 × Model T |",
            "3 times for at least 10 s on 4 GiB",
            "| fio | fio-3.33 |",
        ] {
            assert!(text.contains(words), "no {words:?} in {text}");
        }
    }

    #[test]
    fn names_the_pictures_that_there_are() {
        let outcome = sample::outcome();
        let text = report(&outcome);
        let named = text.lines().filter(|line| line.starts_with("!["));
        let mut named: Vec<&str> =
            named.filter_map(|line| line.split_once("](")?.1.strip_suffix(')')).collect();
        named.sort_unstable();
        let drawn = plots::all(&outcome).unwrap();
        let mut drawn: Vec<&str> = drawn.iter().map(|picture| picture.file.as_str()).collect();
        drawn.sort_unstable();
        assert_eq!(named, drawn);
    }
}
