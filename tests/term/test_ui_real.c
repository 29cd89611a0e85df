/*
 * test_ui_real.c - the program as it is installed: a tiny model with random weights, made by
 * `llmchat create`, answers. What it says is babble; that it streams, is kept, and reuses its
 * KV cache is not.
 *
 * LLMCHAT_BIN and MKMODEL name the two programs; without them the tests are skipped.
 */
#include "harness.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct tt *start(const char *home, const char *arg) {
    const char *argv[] = {getenv("LLMCHAT_BIN"), arg, NULL};
    return tt_start(home, argv, NULL, 24, 110);
}

/* settings: for mkmodel */
static void make_model(const char *home, const char *name, const char *settings) {
    char command[1200];
    snprintf(command, sizeof command,
             "'%s' '%s/tiny.gguf' %s && LLMCHAT_HOME='%s' '%s' create %s --from "
             "'%s/tiny.gguf' >/dev/null 2>&1",
             getenv("MKMODEL"), home, settings, home, getenv("LLMCHAT_BIN"), name, home);
    assert_int_equal(system(command), 0);
}

static long resident_kb(pid_t pid) {
    char path[64], line[200];
    long kb = -1;
    snprintf(path, sizeof path, "/proc/%ld/status", (long)pid);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f))
        sscanf(line, "VmRSS: %ld", &kb);
    fclose(f);
    return kb;
}

static void without_a_model_it_explains_and_stays_small(void **state) {
    struct tt *t = start(*state, NULL);
    tt_wait(t, "No model yet");
    tt_wait(t, "llmchat create NAME --from PATH");
#ifndef __SANITIZE_ADDRESS__
    assert_in_range(resident_kb(tt_pid(t)), 1, 30 * 1024);
#else
    assert_true(resident_kb(tt_pid(t)) > 0);
#endif
    tt_type(t, T_ESC);
    tt_wait_gone(t, "No model yet");
    tt_quit(t);
}

static void a_real_model_answers_and_reuses_its_cache(void **state) {
    make_model(*state, "tiny", "");
    struct tt *t = start(*state, NULL);
    tt_wait(t, "tiny·nf4·cpu");
    tt_type(t, "/set max_tokens 20" T_ENTER);
    tt_wait(t, "max_tokens is 20 now");
    tt_type(t, "/set temperature 0" T_ENTER);
    tt_wait(t, "temperature is 0 now");
    tt_type(t, "first" T_ENTER);
    tt_wait(t, "tok/s");
    tt_wait(t, "● saved");
    tt_type(t, "second" T_ENTER);
    tt_wait(t, "you     second");
    tt_wait(t, "kv reused ");
    tt_wait(t, "● saved");
    tt_quit(t);
    t = start(*state, "-c");
    tt_wait(t, "you     first");
    tt_wait(t, "you     second");
    tt_quit(t);
}

static void killed_while_answering_loses_nothing_that_was_said(void **state) {
    make_model(*state, "tiny", "");
    struct tt *t = start(*state, NULL);
    tt_wait(t, "tiny·nf4·cpu");
    tt_type(t, "remember me" T_ENTER);
    tt_wait(t, "you     remember me");
    tt_signal(t, SIGKILL);
    assert_int_equal(tt_exit(t), 1000 + SIGKILL);
    tt_close(t);
    t = start(*state, "-c");
    tt_wait(t, "you     remember me");
    tt_quit(t);
}

/* The device is the host shim, where keys and values can not be written: the answer does, the
 * CPU is offered, and the same question is answered there. */
static void fails_and_gives_way(void **state, const char *layers, const char *status) {
    const char *module = getenv("TEST_CUDA_MODULE");
    char of_module[1200];
    if (!module || access(module, R_OK) != 0)
        skip();
    snprintf(of_module, sizeof of_module, "LLMCHAT_CUDA_MODULE=%s", module);
    const char *env[] = {of_module, "LLMCHAT_SHIM_FAIL=rope_kv", NULL};
    const char *argv[] = {getenv("LLMCHAT_BIN"), "--gpu-layers", layers, NULL};
    make_model(*state, "tiny", "");
    struct tt *t = tt_start(*state, argv, env, 24, 110);
    tt_wait(t, status);
    tt_type(t, "/set max_tokens 5" T_ENTER);
    tt_wait(t, "max_tokens is 5 now");
    tt_type(t, "are you there" T_ENTER);
    tt_wait(t, "The GPU failed");
    tt_wait(t, "Load the model on the CPU");
    tt_wait(t, "Enter · Esc"); /* it has been there for a while */
    tt_type(t, T_ENTER);
    tt_wait(t, "tiny·nf4·cpu");
    tt_type(t, "/regen" T_ENTER);
    tt_wait(t, "tok/s");
    tt_wait(t, "● saved");
    tt_quit(t);
}

static void a_gpu_that_fails_gives_way_to_the_cpu(void **state) {
    fails_and_gives_way(state, "auto", "tiny·nf4·cuda");
}

static void so_does_one_that_has_a_part(void **state) {
    fails_and_gives_way(state, "1", "tiny·nf4·cuda, 1 of 2 layers");
}

/* The first one's KV cache takes what there is. */
static void a_gpu_full_of_one_model_takes_another(void **state) {
    const char *module = getenv("TEST_CUDA_MODULE");
    char of_module[1200];
    if (!module || access(module, R_OK) != 0)
        skip();
    snprintf(of_module, sizeof of_module, "LLMCHAT_CUDA_MODULE=%s", module);
    const char *env[] = {of_module, "LLMCHAT_SHIM_BYTES=200000000", NULL};
    const char *argv[] = {getenv("LLMCHAT_BIN"), "--gpu-memory-utilization", "0.9", NULL};
    make_model(*state, "tiny", "");
    make_model(*state, "other", "");
    struct tt *t = tt_start(*state, argv, env, 24, 110);
    tt_wait(t, "other·nf4·cuda");
    tt_type(t, "/set max_tokens 5" T_ENTER);
    tt_wait(t, "max_tokens is 5 now");
    tt_type(t, "/model tiny" T_ENTER);
    tt_wait(t, "tiny·nf4·cuda");
    assert_false(tt_has(t, "no room"));
    tt_type(t, "are you there" T_ENTER);
    tt_wait(t, "tok/s");
    tt_wait(t, "● saved");
    tt_quit(t);
}

/* Over the shim and a fake NVML, whose temperature rises with each reading. */
static void the_gpu_is_described_as_it_is_now(void **state) {
    const char *module = getenv("TEST_CUDA_MODULE"), *nvml = getenv("FAKE_NVML_SO");
    char of_module[1200], of_nvml[1200];
    if (!module || access(module, R_OK) != 0 || !nvml)
        skip();
    snprintf(of_module, sizeof of_module, "LLMCHAT_CUDA_MODULE=%s", module);
    snprintf(of_nvml, sizeof of_nvml, "LLMCHAT_NVML=%s", nvml);
    const char *env[] = {of_module, of_nvml, NULL};
    const char *argv[] = {getenv("LLMCHAT_BIN"), NULL};
    make_model(*state, "tiny", "");
    struct tt *t = tt_start(*state, argv, env, 24, 110);
    tt_wait(t, "tiny·nf4·cuda");
    tt_type(t, "/show model" T_ENTER);
    tt_wait(t, "About the model");
    tt_wait(t, "The GPU now     20.0 of 80.0 GiB in use,");
    tt_wait(t, "                37 % busy (memory 12 %), 61 °C, 310 of 700 W");
    tt_wait(t, "62 °C");
    tt_wait(t, "63 °C");
    tt_type(t, T_ESC);
    tt_wait_gone(t, "About the model");
    tt_quit(t);
    const char *part[] = {getenv("LLMCHAT_BIN"), "--gpu-layers", "1", NULL};
    t = tt_start(*state, part, env, 24, 110);
    tt_wait(t, "tiny·nf4·cuda, 1 of 2 layers");
    tt_type(t, "/show model" T_ENTER);
    tt_wait(t, "Runs on         cuda, 1 of 2 layers, host shim kernels, ");
    tt_wait(t, "The GPU now     20.0 of 80.0 GiB in use,");
    tt_quit(t);
    env[1] = "LLMCHAT_NVML=none";
    t = tt_start(*state, argv, env, 24, 110);
    tt_wait(t, "tiny·nf4·cuda");
    tt_type(t, "/show model" T_ENTER);
    tt_wait(t, "A token reads");
    assert_false(tt_has(t, "The GPU now"));
    tt_quit(t);
}

static void so_are_all_that_share_a_model(void **state) {
    const char *module = getenv("TEST_CUDA_MODULE"), *nvml = getenv("FAKE_NVML_SO");
    const char *nccl = getenv("TEST_NCCL");
    char of_module[1200], of_nvml[1200], of_nccl[1200];
    if (!module || access(module, R_OK) != 0 || !nvml || !nccl)
        skip();
    snprintf(of_module, sizeof of_module, "LLMCHAT_CUDA_MODULE=%s", module);
    snprintf(of_nvml, sizeof of_nvml, "LLMCHAT_NVML=%s", nvml);
    snprintf(of_nccl, sizeof of_nccl, "LLMCHAT_NCCL=%s", nccl);
    const char *env[] = {of_module, of_nvml, of_nccl, "LLMCHAT_SHIM_DEVICES=2", NULL};
    const char *argv[] = {getenv("LLMCHAT_BIN"), "--tensor-parallel", "2", NULL};
    make_model(*state, "tiny", "embd=128 ff=256");
    struct tt *t = tt_start(*state, argv, env, 24, 110);
    tt_wait(t, "tiny·nf4·cuda, 2 GPUs");
    tt_type(t, "/show model" T_ENTER);
    tt_wait(t, "About the model");
    tt_wait(t, "Runs on         cuda, 2 GPUs, host shim kernels");
    tt_wait(t, "GPU 0 now       20.0 of 80.0 GiB in use,");
    tt_wait(t, "GPU 1 now       10.0 of 40.0 GiB in use,");
    tt_wait(t, "                52 % busy (memory 12 %), 31 °C, 120 of 350 W");
    tt_wait(t, "32 °C");
    assert_false(tt_has(t, "thread"));
    tt_quit(t);
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, tt_setup, tt_teardown)
    const struct CMUnitTest tests[] = {
        T(without_a_model_it_explains_and_stays_small),
        T(a_real_model_answers_and_reuses_its_cache),
        T(killed_while_answering_loses_nothing_that_was_said),
        T(a_gpu_that_fails_gives_way_to_the_cpu),
        T(so_does_one_that_has_a_part),
        T(a_gpu_full_of_one_model_takes_another),
        T(the_gpu_is_described_as_it_is_now),
        T(so_are_all_that_share_a_model),
    };
    if (!tt_ready(getenv("LLMCHAT_BIN")) || !tt_ready(getenv("MKMODEL")))
        return 77;
    return cmocka_run_group_tests_name("ui_real", tests, NULL, NULL);
}
