use codit::doctor::mixture;

#[test]
fn a_mixture_is_as_on_the_cpu() {
    super::run(mixture::checks);
}
