//! The screens of routes, which come in pages.

use std::io::Write;

use anyhow::Context;
use caracal_bgp_speaker::api::{Request, RoutesView};
use caracal_bgp_speaker::snapshot::{FibSnapshot, PathSnapshot, RouteSnapshot};

use super::client::Client;
use super::{counted, known};
use crate::table::Columns;

/// Prints a table as its pages come.
pub(super) fn table(
    client: &mut Client,
    request: &Request,
    view: RoutesView,
    limit: Option<usize>,
    mut out: impl Write,
) -> anyhow::Result<()> {
    let mut screen = Screen::new(view, limit);
    client.pages(request, |page| {
        let written = out.write_all(screen.page(page).as_bytes());
        written.context("cannot write")?;
        Ok(!screen.full())
    })?;
    let end = out.write_all(screen.end().as_bytes());
    end.and_then(|()| out.flush()).context("cannot write")
}

/// Prints one JSON array as its pages come.
pub(super) fn json(
    client: &mut Client,
    request: &Request,
    limit: Option<usize>,
    mut out: impl Write,
) -> anyhow::Result<()> {
    let mut left = limit.unwrap_or(usize::MAX);
    let mut separator = "[\n";
    client.pages(request, |page: Vec<RouteSnapshot>| {
        for route in page.iter().take(left) {
            let text = serde_json::to_string(route).context("cannot write JSON")?;
            write!(out, "{separator}{text}").context("cannot write")?;
            separator = ",\n";
        }
        left = left.saturating_sub(page.len());
        Ok(left > 0)
    })?;
    let end = if separator == "[\n" { "[]\n" } else { "\n]\n" };
    write!(out, "{end}").context("cannot write")?;
    out.flush().context("cannot write")
}

/// A table of routes in the making.
pub(super) struct Screen {
    view: RoutesView,
    columns: Columns,
    limit: Option<usize>,
    routes: usize,
    paths: usize,
    begun: bool,
    cut: bool,
}

impl Screen {
    /// Of a listing, or its first `limit` prefixes.
    pub(super) fn new(view: RoutesView, limit: Option<usize>) -> Self {
        Self {
            view,
            columns: Columns::default(),
            limit,
            routes: 0,
            paths: 0,
            begun: false,
            cut: false,
        }
    }

    /// Whether there is nothing more to show.
    pub(super) fn full(&self) -> bool {
        self.cut
    }

    /// The next lines.
    pub(super) fn page(&mut self, mut page: Vec<RouteSnapshot>) -> String {
        let room = self.limit.unwrap_or(usize::MAX) - self.routes;
        self.cut = page.len() > room;
        page.truncate(room);
        self.routes += page.len();
        let mut rows = Vec::new();
        for route in &page {
            self.paths += route.paths.len();
            for (at, path) in route.paths.iter().enumerate() {
                rows.push(self.row(route, path, at == 0));
            }
        }
        let mut text = String::new();
        if !self.begun && !rows.is_empty() {
            let header = self.header().map(str::to_owned).to_vec();
            self.columns.widen(&rows);
            text.push_str(&self.columns.render(&[header]));
            self.begun = true;
        }
        text + &self.columns.render(&rows)
    }

    /// The last line.
    pub(super) fn end(&self) -> String {
        let mut text = counted(self.routes, "prefix").replace("prefixs", "prefixes");
        if self.paths != self.routes {
            text.push_str(&format!(", {}", counted(self.paths, "path")));
        }
        if self.cut {
            text.push_str(", and more");
        }
        text + "\n"
    }

    /// Columns are the same in all views, so that programs that cut them need not know which it is.
    fn header(&self) -> [&'static str; 10] {
        let last = match self.view {
            RoutesView::Advertised => "",
            _ => "WHY",
        };
        [
            "",
            "PREFIX",
            "NEXT-HOP",
            "FROM",
            "AS-PATH",
            "LP",
            "MED",
            "COMMUNITIES",
            "KERNEL",
            last,
        ]
    }

    fn row(&self, route: &RouteSnapshot, path: &PathSnapshot, first: bool) -> Vec<String> {
        let once = |text: String| if first { text } else { String::new() };
        vec![
            match self.view {
                RoutesView::Advertised | RoutesView::Withheld => " ",
                _ => mark(path),
            }
            .to_owned(),
            once(route.prefix.to_string()),
            known(path.next_hop),
            from(path),
            as_path(path),
            known(path.local_pref),
            known(path.med),
            communities(path),
            once(fib(&route.fib)),
            why(path),
        ]
    }
}

/// `*` best, `=` shares the load, `x` rejected.
pub(super) fn mark(path: &PathSnapshot) -> &'static str {
    match (path.rejected.is_some(), path.best, path.multipath) {
        (true, _, _) => "x",
        (_, true, _) => "*",
        (_, _, true) => "=",
        _ => " ",
    }
}

/// The peer that told it, with its number where it told several.
pub(super) fn from(path: &PathSnapshot) -> String {
    let name = match path.from.as_str() {
        "" => "-",
        name => name,
    };
    match path.path_id {
        0 => name.to_owned(),
        id => format!("{name}#{id}"),
    }
}

pub(super) fn as_path(path: &PathSnapshot) -> String {
    match path.as_path.as_str() {
        "" => "-".to_owned(),
        text => text.to_owned(),
    }
}

pub(super) fn communities(path: &PathSnapshot) -> String {
    let all: Vec<&str> = path
        .communities
        .iter()
        .chain(&path.large_communities)
        .map(String::as_str)
        .collect();
    match all.is_empty() {
        true => "-".to_owned(),
        false => all.join(","),
    }
}

fn fib(state: &FibSnapshot) -> String {
    match state {
        FibSnapshot::None => "-",
        FibSnapshot::Pending => "pending",
        FibSnapshot::Installed => "installed",
        FibSnapshot::Failed(why) => return format!("failed: {why}"),
    }
    .to_owned()
}

fn why(path: &PathSnapshot) -> String {
    let lost = path.lost_at.as_ref().map(|step| format!("lost by {step}"));
    let why = path.rejected.clone().or(lost).unwrap_or_default();
    match (path.stale, why.as_str()) {
        (false, _) => why,
        (true, "") => "stale".to_owned(),
        (true, _) => format!("stale, {why}"),
    }
}
