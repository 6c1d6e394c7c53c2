use codit::doctor::attention;

#[test]
fn attention_is_as_on_the_cpu() {
    super::run(attention::checks);
}

#[test]
fn attention_over_e4m3_is_as_on_the_cpu() {
    super::run_with_e4m3_cache(attention::few);
}
