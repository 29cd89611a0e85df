/*
 * fake_nvml.c - NVML as tests want it: one device, at the PCI address of the host shim. Opened
 * in the library's place by LLMCHAT_NVML.
 *
 * FAKE_NVML holds what fails, as words: init, memory, busy, temperature, power, limit. The
 * temperature is 60 plus how often it was asked for, so that a reading is told from the next.
 */
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, NOT_SUPPORTED = 3, NOT_FOUND = 6, NO_DRIVER = 9 };

int nvmlInit_v2(void);
int nvmlShutdown(void);
const char *nvmlErrorString(int code);
int nvmlDeviceGetHandleByPciBusId_v2(const char *pci, void **device);
int nvmlDeviceGetMemoryInfo(void *device, unsigned long long m[3]);
int nvmlDeviceGetUtilizationRates(void *device, unsigned u[2]);
int nvmlDeviceGetTemperature(void *device, int sensor, unsigned *celsius);
int nvmlDeviceGetPowerUsage(void *device, unsigned *milliwatt);
int nvmlDeviceGetEnforcedPowerLimit(void *device, unsigned *milliwatt);
/* How often the temperature was asked for; how often the library is started and not shut down.
 */
int fake_nvml_reads(void);
int fake_nvml_open(void);

static int n_read, n_open, card;

static int answer(const char *what) {
    const char *fails = getenv("FAKE_NVML");
    return fails && strstr(fails, what) ? NOT_SUPPORTED : SUCCESS;
}

int nvmlInit_v2(void) {
    if (answer("init") != SUCCESS)
        return NO_DRIVER;
    n_open++;
    return SUCCESS;
}

int nvmlShutdown(void) {
    n_open--;
    return SUCCESS;
}

const char *nvmlErrorString(int code) {
    return code == NOT_SUPPORTED ? "Not Supported"
           : code == NOT_FOUND   ? "Not Found"
                                 : "Driver Not Loaded";
}

int nvmlDeviceGetHandleByPciBusId_v2(const char *pci, void **device) {
    *device = &card;
    return strcmp(pci, "0000:0f:00.0") == 0 ? SUCCESS : NOT_FOUND;
}

int nvmlDeviceGetMemoryInfo(void *device, unsigned long long m[3]) {
    m[0] = 80ull << 30; /* total, free, used */
    m[1] = 60ull << 30;
    m[2] = 20ull << 30;
    return device == &card ? answer("memory") : NOT_FOUND;
}

int nvmlDeviceGetUtilizationRates(void *device, unsigned u[2]) {
    u[0] = 37;
    u[1] = 12;
    return device == &card ? answer("busy") : NOT_FOUND;
}

int nvmlDeviceGetTemperature(void *device, int sensor, unsigned *celsius) {
    *celsius = (unsigned)(60 + ++n_read);
    return device == &card && sensor == 0 ? answer("temperature") : NOT_FOUND;
}

int nvmlDeviceGetPowerUsage(void *device, unsigned *milliwatt) {
    *milliwatt = 310400;
    return device == &card ? answer("power") : NOT_FOUND;
}

int nvmlDeviceGetEnforcedPowerLimit(void *device, unsigned *milliwatt) {
    *milliwatt = 700000;
    return device == &card ? answer("limit") : NOT_FOUND;
}

int fake_nvml_reads(void) {
    return n_read;
}

int fake_nvml_open(void) {
    return n_open;
}
