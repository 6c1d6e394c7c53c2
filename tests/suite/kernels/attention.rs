use codit::doctor::attention;

#[test]
fn attention_agrees_with_the_cpu() {
    super::run(attention::checks);
}
