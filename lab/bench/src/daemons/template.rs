//! Fills the configuration files in `lab/bench/daemons`.
//!
//! A line `[flag] text` counts only where the flag is set; lines from `%% each LIST` to `%% end` are repeated for
//! each entry of the list; `{{name}}` stands for a value.

use std::collections::BTreeMap;

/// Values by name.
pub(super) type Values = BTreeMap<&'static str, String>;

/// What a file is filled with.
#[derive(Debug, Default)]
pub(super) struct Filling {
    pub(super) flags: Vec<&'static str>,
    pub(super) values: Values,
    pub(super) lists: BTreeMap<&'static str, Vec<Values>>,
}

/// The text of `template`. A mistake in a template is a mistake of ours.
///
/// # Panics
/// The template names a list or a value that does not exist.
pub(super) fn fill(template: &str, filling: &Filling) -> String {
    let mut text = String::new();
    let mut lines = template.lines();
    while let Some(line) = lines.next() {
        if let Some(list) = line.strip_prefix("%% each ") {
            let block: Vec<&str> = lines
                .by_ref()
                .take_while(|line| *line != "%% end")
                .collect();
            let list = filling
                .lists
                .get(list)
                .unwrap_or_else(|| panic!("no list {list}"));
            for values in list {
                for line in &block {
                    put(line, filling, Some(values), &mut text);
                }
            }
        } else {
            put(line, filling, None, &mut text);
        }
    }
    text
}

fn put(line: &str, filling: &Filling, own: Option<&Values>, text: &mut String) {
    let mut line = line;
    if let Some((flag, rest)) = line
        .strip_prefix('[')
        .and_then(|rest| rest.split_once("] "))
        && FLAGS.contains(&flag)
    {
        if !filling.flags.contains(&flag) {
            return;
        }
        line = rest;
    }
    while let Some((before, rest)) = line.split_once("{{") {
        let (name, after) = rest.split_once("}}").expect("a name ends with }}");
        let value = own
            .and_then(|values| values.get(name))
            .or_else(|| filling.values.get(name))
            .unwrap_or_else(|| panic!("no value {name}"));
        text.push_str(before);
        text.push_str(value);
        line = after;
    }
    text.push_str(line);
    text.push('\n');
}

/// Some files begin lines of their own with brackets.
const FLAGS: &[&str] = &["kernel", "reflector", "external"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_repeat_flags_choose_and_names_become_values() {
        let filling = Filling {
            flags: vec!["kernel"],
            values: Values::from([("asn", "65000".into())]),
            lists: BTreeMap::from([(
                "peer",
                vec![
                    Values::from([("name", "a".into())]),
                    Values::from([("name", "b".into())]),
                ],
            )]),
        };
        let template = "as {{asn}}\n[kernel] yes\n[reflector] no\n[[table]]\n%% each peer\n{{name}} of {{asn}}\n%% end\nend\n";
        assert_eq!(
            fill(template, &filling),
            "as 65000\nyes\n[[table]]\na of 65000\nb of 65000\nend\n"
        );
    }
}
