//! Two texts line by line: what both have, what only the first has, what only the second has.

/// Longer texts are not compared line by line.
const LINES_MAX: usize = 2_000;

/// The lines of both, in order: two spaces before those of both, `- ` before those that only `before` has, `+ ` before those of `after`.
pub(super) fn diff(before: &str, after: &str) -> String {
    let (before, after): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    let mut out = String::new();
    let mut line = |mark: &str, text: &str| {
        out.push_str(mark);
        out.push_str(text);
        out.push('\n');
    };
    if before.len() > LINES_MAX || after.len() > LINES_MAX {
        before.iter().for_each(|text| line("- ", text));
        after.iter().for_each(|text| line("+ ", text));
        return out;
    }
    let common = common_tails(&before, &after);
    let at = |i: usize, j: usize| common.get(i).and_then(|row| row.get(j)).copied().unwrap_or(0);
    let (mut i, mut j) = (0, 0);
    loop {
        match (before.get(i), after.get(j)) {
            (None, None) => break,
            (Some(a), Some(b)) if a == b => {
                line("  ", a);
                (i, j) = (i + 1, j + 1);
            }
            (Some(a), b) if b.is_none() || at(i + 1, j) >= at(i, j + 1) => {
                line("- ", a);
                i += 1;
            }
            (_, Some(b)) => {
                line("+ ", b);
                j += 1;
            }
            (Some(a), None) => {
                line("- ", a);
                i += 1;
            }
        }
    }
    out
}

/// How many lines the texts from line `i` of the one and `j` of the other on have in common.
fn common_tails(before: &[&str], after: &[&str]) -> Vec<Vec<u32>> {
    let mut rows: Vec<Vec<u32>> = vec![vec![0; after.len() + 1]];
    for a in before.iter().rev() {
        let below = rows.last().cloned().unwrap_or_default();
        let mut row = vec![0; after.len() + 1];
        for (j, b) in after.iter().enumerate().rev() {
            let value = |row: &[u32], j: usize| row.get(j).copied().unwrap_or(0);
            let longest = if a == b { value(&below, j + 1) + 1 } else { value(&below, j).max(value(&row, j + 1)) };
            if let Some(cell) = row.get_mut(j) {
                *cell = longest;
            }
        }
        rows.push(row);
    }
    rows.reverse();
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_both_have_stay_and_the_others_are_marked() {
        assert_eq!(diff("a\nb\nc\nd", "a\nx\nc\nd\ne"), "  a\n- b\n+ x\n  c\n  d\n+ e\n");
        assert_eq!(diff("", "a"), "+ a\n");
        assert_eq!(diff("a", ""), "- a\n");
        assert_eq!(diff("same", "same"), "  same\n");
    }
}
