use codit::doctor::{matmul, mixture};

#[test]
fn products_are_as_on_the_cpu() {
    super::run(matmul::checks);
    super::run_deterministic(matmul::checks);
    super::run_with_e4m3(matmul::checks);
}

#[test]
fn mixtures_of_e4m3_are_as_on_the_cpu() {
    super::run_with_e4m3(mixture::checks);
}
