//! Every combination of facts against the rows of `docs/recovery.md`: one row each, and its outcome.

use super::*;

const DOCUMENT: &str = include_str!("../../../docs/recovery.md");

/// A row of a table: what it says of each fact, and the label of its outcome.
struct Row {
    facts: Vec<String>,
    label: String,
}

/// The table under a heading: as many facts as told, then the label, then words.
fn table(heading: &str, facts: usize) -> Vec<Row> {
    let section = DOCUMENT
        .split("\n## ")
        .find(|part| part.starts_with(heading));
    let section = section.unwrap_or_else(|| panic!("no section {heading}"));
    let rows = section.lines().filter(|line| line.starts_with('|')).skip(2);
    let rows = rows.map(|line| {
        let cells = line.trim_matches('|').split('|').map(str::trim);
        let mut cells: Vec<String> = cells.map(str::to_owned).collect();
        assert_eq!(cells.len(), facts + 2, "{line}");
        let label = cells[facts].trim_matches('*').to_owned();
        cells.truncate(facts);
        Row {
            facts: cells,
            label,
        }
    });
    rows.collect()
}

/// Holds one combination against the table; says which row it is.
fn check(table: &[Row], facts: &[&str], label: &str) -> usize {
    let says = |row: &Row| {
        let mut cells = row.facts.iter().zip(facts);
        cells.all(|(cell, fact)| cell == "any" || cell.split(" or ").any(|one| one == *fact))
    };
    let rows: Vec<usize> = (0..table.len()).filter(|at| says(&table[*at])).collect();
    assert_eq!(rows.len(), 1, "{facts:?} has {} rows", rows.len());
    assert_eq!(table[rows[0]].label, label, "{facts:?}");
    rows[0]
}

/// Every row is met by some combination, and every outcome there is has a row.
fn all_met(table: &[Row], met: &[usize], labels: &[&str]) {
    let idle: Vec<_> = (0..table.len()).filter(|at| !met.contains(at)).collect();
    assert!(idle.is_empty(), "rows nothing meets: {idle:?}");
    for label in labels {
        assert!(
            table.iter().any(|row| row.label == *label),
            "no row {label}"
        );
    }
    for row in table {
        assert!(
            labels.contains(&row.label.as_str()),
            "no outcome {}",
            row.label
        );
    }
}

macro_rules! labels {
    ($name:ty) => {
        &<$name>::ALL
            .iter()
            .map(|one| one.words())
            .collect::<Vec<_>>()
    };
}

#[test]
fn every_combination_of_files_and_catalog_has_the_outcome_its_row_says() {
    let (table, mut met) = (table("Start", 2), Vec::new());
    for files in Files::ALL {
        for known in Known::ALL {
            let label = start(*files, *known).words();
            met.push(check(&table, &[files.words(), known.words()], label));
        }
    }
    all_met(&table, &met, labels!(Start));
}

#[test]
fn every_combination_about_a_segment_has_the_outcome_its_row_says() {
    let (table, mut met) = (table("Segments", 3), Vec::new());
    for place in Place::ALL {
        for file in SegmentFile::ALL {
            for index in IndexFound::ALL {
                let facts = [place.words(), file.words(), index.words()];
                let label = segment(*place, *file, *index).words();
                met.push(check(&table, &facts, label));
            }
        }
    }
    all_met(&table, &met, labels!(Segment));
}

#[test]
fn every_combination_about_a_group_has_the_outcome_its_row_says() {
    let (table, mut met) = (table("Groups", 3), Vec::new());
    for found in GroupFound::ALL {
        for follows in Follows::ALL {
            for in_order in InOrder::ALL {
                let facts = [found.words(), follows.words(), in_order.words()];
                let label = group(*found, *follows, *in_order).words();
                met.push(check(&table, &facts, label));
            }
        }
    }
    all_met(&table, &met, labels!(Group));
}

#[test]
fn every_combination_about_an_entry_has_the_outcome_its_row_says() {
    let (table, mut met) = (table("Entries", 2), Vec::new());
    for head in EntryHead::ALL {
        for body in EntryBody::ALL {
            let label = entry(*head, *body).words();
            met.push(check(&table, &[head.words(), body.words()], label));
        }
    }
    all_met(&table, &met, labels!(Entry));
}

#[test]
fn every_combination_about_a_stream_has_the_outcome_its_row_says() {
    let (table, mut met) = (table("Streams", 2), Vec::new());
    for life in Life::ALL {
        for again in Again::ALL {
            let label = stream(*life, *again).words();
            met.push(check(&table, &[life.words(), again.words()], label));
        }
    }
    all_met(&table, &met, labels!(Stream));
}

#[test]
fn every_combination_about_the_base_has_the_outcome_its_row_says() {
    let (table, mut met) = (table("The base", 3), Vec::new());
    for state in Base::ALL {
        for reach in Reach::ALL {
            for targets in Targets::ALL {
                let facts = [state.words(), reach.words(), targets.words()];
                let label = base(*state, *reach, *targets).words();
                met.push(check(&table, &facts, label));
            }
        }
    }
    all_met(&table, &met, labels!(Moved));
}
