use codit::doctor::attention;

#[test]
fn attention_is_as_on_the_cpu() {
    super::run(attention::checks);
}
