use codit::doctor::attention;

#[test]
fn attention_is_as_on_the_cpu() {
    super::run(attention::checks);
}

/// Tests steps of every kind.
#[test]
fn deterministic_attention_is_as_on_the_cpu_and_the_same_in_every_step() {
    super::run_deterministic(attention::few);
}

#[test]
fn attention_over_e4m3_is_as_on_the_cpu() {
    super::run_with_e4m3_cache(attention::few);
}
