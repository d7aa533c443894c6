//! The errors of `#[service]`, as a user sees them: one file of `tests/ui` a topic.
//!
//! After a change of words, `TRYBUILD=overwrite cargo test --test macro_errors` writes them anew.

#[test]
#[cfg(feature = "tokio")]
fn mistakes_are_explained_where_they_are() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/ui/*.rs");
}

#[test]
#[cfg(not(feature = "tokio"))]
fn async_services_name_the_feature_that_they_need() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/ui/without_tokio/*.rs");
}
