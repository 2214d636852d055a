//! What only the speaker of another node could answer.
//!
//! A speaker answers on a socket of its own node. What it reports to the cluster is a summary; for all
//! else somebody has to ask on that node, which whoever may run commands in its pod can do from here.

use anyhow::anyhow;

/// Where `deploy/node.yaml` runs agents.
const NAMESPACE: &str = "caracal-system";
/// The label of their pods.
const LABEL: &str = "app.kubernetes.io/name=caracal-node";
/// Their container.
const CONTAINER: &str = "node";

/// Stands for a name that was not given.
const ANY_NODE: &str = "NODE";

/// Options that say whom to ask, with and without a value of their own.
const WHOM: [&str; 3] = ["--node", "--kubeconfig", "--run-dir"];
const ALL: &str = "--all-nodes";

/// The command that runs `words`, those of a `caracal bgp`, on a node.
pub(super) fn command(node: Option<&str>, words: &[String]) -> String {
    let mut question = String::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let option = word.split_once('=').map_or(&**word, |(option, _)| option);
        if WHOM.contains(&option) {
            if option == word {
                words.next();
            }
            continue;
        }
        let word = match word.strip_prefix('-') {
            // `-A`, also among other short options.
            Some(short) if !short.starts_with('-') => match short.replacen('A', "", 1) {
                rest if rest.is_empty() => continue,
                rest => format!("-{rest}"),
            },
            _ if word == ALL => continue,
            _ => word.clone(),
        };
        question.push(' ');
        question.push_str(&quoted(&word));
    }
    let node = quoted(node.unwrap_or(ANY_NODE));
    format!(
        "kubectl -n {NAMESPACE} exec -c {CONTAINER} \"$(kubectl -n {NAMESPACE} get pod -o name \
         -l {LABEL} --field-selector spec.nodeName={node})\" -- caracal bgp{question}"
    )
}

/// Says that there is no answer from here, and where there is one.
pub(super) fn refuse(why: &str, node: Option<&str>, words: &[String]) -> anyhow::Error {
    anyhow!("{why}\nhint: {}", command(node, words))
}

/// A word as a shell reads it.
fn quoted(word: &str) -> String {
    let plain = |sign: char| sign.is_ascii_alphanumeric() || "._:/=,@%+-".contains(sign);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_asks_the_same_where_it_can_be_answered() {
        for (node, words, expected) in [
            (Some("n1"), "explain 10.0.0.1 --node n1", "explain 10.0.0.1"),
            (None, "history tor1 -A --events", "history tor1 --events"),
            (None, "history --all-nodes tor1", "history tor1"),
            (
                Some("n1"),
                "--node=n1 routes --received tor1 --kubeconfig=f -Ao json --run-dir /x",
                "routes --received tor1 -o json",
            ),
            (
                None,
                "routes --rejected=tor1 -A -o json",
                "routes --rejected=tor1 -o json",
            ),
        ] {
            let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
            let command = command(node, &words);
            let node = node.unwrap_or("NODE");
            let (whom, asked) = command.split_once(" -- caracal bgp ").unwrap();
            assert!(
                whom.ends_with(&format!("spec.nodeName={node})\"")),
                "{whom}"
            );
            assert_eq!(asked, expected);
        }
    }

    #[test]
    fn words_are_what_a_shell_makes_of_them() {
        let message = "we're moving; $HOME";
        let words = ["clear", "tor1", "--hard", "--message", message].map(str::to_owned);
        let output = std::process::Command::new("sh")
            .arg("-c")
            .arg(command(Some("n1"), &words).replace("kubectl", "printf '%s\\n' "))
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let asked: Vec<&str> = said
            .lines()
            .skip_while(|line| *line != "bgp")
            .skip(1)
            .collect();
        assert_eq!(asked, words);
    }

    #[test]
    fn the_agents_run_where_the_command_looks_for_them() {
        let manifest = include_str!("../../../deploy/node.yaml");
        let (key, value) = LABEL.split_once('=').unwrap();
        for part in [
            format!("matchLabels: {{{key}: {value}}}"),
            format!("namespace: {NAMESPACE}\n"),
            format!("- name: {CONTAINER}\n"),
        ] {
            assert!(manifest.contains(&part), "no {part:?}");
        }
    }
}
