//! docs/benchmarks.md and its plot are what their data renders to, and nothing else.

use std::fs;
use std::path::Path;

use caracal_bench::book::Book;
use caracal_bench::report::page::write_page;

#[test]
fn the_page_is_what_its_data_renders_to() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let page = docs.join("benchmarks.md");
    let data = Book::beside(&page);
    if !page.exists() && !data.exists() {
        return caracal_skip::skip!("nothing is measured yet: no {}", data.display());
    }
    let book = Book::read(&data).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let fresh = folder.path().join("benchmarks.md");
    write_page(&book, &fresh).unwrap();
    for ending in ["md", "svg"] {
        let read = |page: &Path| fs::read_to_string(page.with_extension(ending)).unwrap();
        assert!(
            read(&page) == read(&fresh),
            "docs/benchmarks.{ending} is not what benchmarks.json renders to; \
             `caracal-bench --render docs/benchmarks.md` writes it again"
        );
    }
    assert_eq!(
        fs::read_to_string(&data).unwrap(),
        book.text().unwrap(),
        "docs/benchmarks.json is not as the bench writes it; measure instead of editing"
    );
}
