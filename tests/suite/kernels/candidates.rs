use codit::doctor::candidates;

use super::run;

#[test]
fn gathered_candidates_draw_what_the_reference_does() {
    run(candidates::checks);
}
