/*
 * fake_nvml.c - NVML as tests want it: two devices, at the PCI addresses of the host shim's
 * first two; the second has half of the first one's memory, and is half as hot. Opened in the
 * library's place by LLMCHAT_NVML.
 *
 * FAKE_NVML holds what fails, as words: init, memory, busy, temperature, power, limit. The
 * temperature is 60, or 30, plus how often it was asked for, so that a reading is told from the
 * next.
 */
#include <assert.h>
#include <stddef.h>
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
/* How often the temperature of the first was asked for; how often the library is started and
 * not shut down.
 */
int fake_nvml_reads(void);
int fake_nvml_open(void);

enum { N_CARD = 2 };

static const char *const addresses[N_CARD] = {"0000:0f:00.0", "0000:1f:00.0"};
static int n_open, n_read[N_CARD];
static char cards[N_CARD]; /* their addresses are the devices */

static int number(const void *device) {
    ptrdiff_t i = (const char *)device - cards;
    assert(i >= 0 && i < N_CARD);
    return (int)i;
}

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
    for (int i = 0; i < N_CARD; i++)
        if (strcmp(pci, addresses[i]) == 0) {
            *device = &cards[i];
            return SUCCESS;
        }
    return NOT_FOUND;
}

int nvmlDeviceGetMemoryInfo(void *device, unsigned long long m[3]) {
    int half = number(device);
    m[0] = 80ull << 30 >> half; /* total, free, used */
    m[1] = 60ull << 30 >> half;
    m[2] = 20ull << 30 >> half;
    return answer("memory");
}

int nvmlDeviceGetUtilizationRates(void *device, unsigned u[2]) {
    u[0] = number(device) ? 52 : 37;
    u[1] = 12;
    return answer("busy");
}

int nvmlDeviceGetTemperature(void *device, int sensor, unsigned *celsius) {
    int i = number(device);
    *celsius = (unsigned)((60 >> i) + ++n_read[i]);
    return sensor == 0 ? answer("temperature") : NOT_FOUND;
}

int nvmlDeviceGetPowerUsage(void *device, unsigned *milliwatt) {
    *milliwatt = number(device) ? 120000 : 310400;
    return answer("power");
}

int nvmlDeviceGetEnforcedPowerLimit(void *device, unsigned *milliwatt) {
    *milliwatt = number(device) ? 350000 : 700000;
    return answer("limit");
}

int fake_nvml_reads(void) {
    return n_read[0];
}

int fake_nvml_open(void) {
    return n_open;
}
