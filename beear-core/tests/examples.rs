//! Runs the examples, which are otherwise only compiled.

#[path = "../examples/toy_bilevel.rs"]
mod toy_bilevel;

#[test]
fn the_toy_example_removes_and_keeps_its_utility() {
    toy_bilevel::main();
}
