use codit::doctor::heads;

use super::run;

#[test]
fn gathered_heads_draw_what_the_reference_does() {
    run(heads::checks);
}
