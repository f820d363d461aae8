/* CUDA's driver for machines without a GPU: as much of it as pycuda and cuda-bindings need to run a plan.

   It keeps to the real one where a program may go wrong: a stack of contexts for each thread, "invalid device context"
   where none is current, objects that die with the primary context, an error that stays after a launch has failed, and
   the texts of cuGetErrorString. Work is done at once. Functions called gpu_... are for the tests. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef int CUresult;
typedef unsigned long long CUdeviceptr;

enum {
    SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_DEVICE = 101, INVALID_CONTEXT = 201,
    INVALID_HANDLE = 400, NOT_FOUND = 500, NOT_READY = 600, CONTEXT_IS_DESTROYED = 709, LAUNCH_FAILED = 719,
    STREAM_CAPTURE_UNSUPPORTED = 900,
};

typedef enum { DEVICE, HOST, STREAM, EVENT, GRAPH, EXECUTABLE, KINDS } Kind;

typedef struct Object {
    struct Object *next;
    Kind kind;
    char *memory; /* DEVICE and HOST */
    size_t size;
    int mapped;
    int capturing; /* STREAM: the number of the graph that is being recorded; GRAPH and EXECUTABLE: of theirs */
    double time_ms; /* EVENT, -1 before it was recorded */
} Object;

static char primary; /* its address is the primary context, before and after it is retained again */
static __thread void *stack[256];
static __thread int depth, captures;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static Object *objects;
static int retained, orphans, integrated, lost, graphs, event_wait_ms;
static long calls, fail_at = -1, allocations;
static int fail_with = INVALID_VALUE;
static size_t capacity = (size_t)1 << 30;
static const char *failed = "";
static void (*on_launch)(int);

static double now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return 1e3 * t.tv_sec + 1e-6 * t.tv_nsec;
}

/* Every function that needs a context begins with this. */
static CUresult enter(const char *name) {
    if (++calls == fail_at) {
        failed = name;
        return fail_with;
    }
    if (!depth) return INVALID_CONTEXT;
    if (stack[depth - 1] == &primary && !retained) return CONTEXT_IS_DESTROYED;
    return lost ? LAUNCH_FAILED : SUCCESS;
}
#define ENTER { CUresult r = enter(__func__); if (r) return r; }
#define NOT_WHILE_CAPTURING if (captures) return STREAM_CAPTURE_UNSUPPORTED;

static Object *add(Kind kind) {
    Object *made = calloc(1, sizeof *made);
    made->kind = kind;
    pthread_mutex_lock(&mutex);
    made->next = objects;
    objects = made;
    pthread_mutex_unlock(&mutex);
    return made;
}

static Object *find(void *handle, Kind kind) {
    for (Object *o = objects; o; o = o->next)
        if (o == handle && o->kind == kind) return o;
    return NULL;
}

static Object *at(CUdeviceptr address, size_t size) {
    for (Object *o = objects; o; o = o->next)
        if (o->memory && address >= (CUdeviceptr)o->memory && address + size <= (CUdeviceptr)o->memory + o->size)
            return o;
    return NULL;
}

static CUresult delete(Object *gone) {
    if (!gone) return INVALID_HANDLE;
    pthread_mutex_lock(&mutex);
    for (Object **o = &objects; *o; o = &(*o)->next)
        if (*o == gone) {
            *o = gone->next;
            break;
        }
    pthread_mutex_unlock(&mutex);
    free(gone->memory);
    free(gone);
    return SUCCESS;
}

static Object *reserve(Kind kind, size_t size) {
    /* A card's memory is its own, and where memory is shared all of it counts. */
    size_t used = integrated || kind == DEVICE ? size : 0;
    for (Object *o = objects; o; o = o->next) used += integrated || o->kind == DEVICE ? o->size : 0;
    if (used > capacity) return NULL;
    Object *made = add(kind);
    made->size = size;
    made->memory = aligned_alloc(4096, (size + 4095) / 4096 * 4096);
    memset(made->memory, 0xff, size); /* of float32 not a number */
    allocations++;
    return made;
}

/* The device */

CUresult cuInit(unsigned flags) { return ++calls == fail_at ? (failed = __func__, fail_with) : SUCCESS; }
CUresult cuDriverGetVersion(int *version) { *version = 13000; return SUCCESS; }
CUresult cuDeviceGetCount(int *count) { *count = 1; return SUCCESS; }
CUresult cuDeviceGet(int *device, int ordinal) {
    if (++calls == fail_at) return failed = __func__, fail_with;
    *device = 0;
    return ordinal ? INVALID_DEVICE : SUCCESS;
}
CUresult cuDeviceGetName(char *name, int size, int device) {
    if (++calls == fail_at) return failed = __func__, fail_with;
    strncpy(name, "Stub of a GPU", size);
    return SUCCESS;
}
CUresult cuDeviceGetAttribute(int *value, int attribute, int device) {
    if (++calls == fail_at) return failed = __func__, fail_with;
    *value = attribute == 18 ? integrated : attribute == 75 ? 8 : attribute == 76 ? 7 : 0;
    return SUCCESS;
}

/* Contexts */

CUresult cuDevicePrimaryCtxRetain(void **context, int device) {
    if (++calls == fail_at) return failed = __func__, fail_with;
    retained++;
    *context = &primary;
    return SUCCESS;
}
CUresult cuDevicePrimaryCtxRelease_v2(int device) {
    if (++calls == fail_at) return failed = __func__, fail_with;
    if (!retained) return INVALID_CONTEXT;
    if (!--retained)
        for (; objects; orphans++) delete(objects);
    return SUCCESS;
}
CUresult cuCtxPushCurrent_v2(void *context) {
    if (context == &primary && !retained) return CONTEXT_IS_DESTROYED;
    stack[depth++] = context;
    return SUCCESS;
}
CUresult cuCtxPopCurrent_v2(void **context) {
    if (!depth) return INVALID_CONTEXT;
    *context = stack[--depth];
    return SUCCESS;
}
CUresult cuCtxGetCurrent(void **context) { *context = depth ? stack[depth - 1] : NULL; return SUCCESS; }
CUresult cuCtxGetDevice(int *device) { *device = 0; return depth ? SUCCESS : INVALID_CONTEXT; }
CUresult cuCtxSynchronize(void) { ENTER NOT_WHILE_CAPTURING return SUCCESS; }

/* Memory */

CUresult cuMemAlloc_v2(CUdeviceptr *address, size_t size) {
    ENTER NOT_WHILE_CAPTURING
    Object *made = reserve(DEVICE, size);
    if (!made) return OUT_OF_MEMORY;
    *address = (CUdeviceptr)made->memory;
    return SUCCESS;
}
CUresult cuMemFree_v2(CUdeviceptr address) {
    ENTER
    Object *o = at(address, 0);
    return o && o->kind == DEVICE ? delete(o) : INVALID_VALUE;
}
CUresult cuMemGetInfo_v2(size_t *available, size_t *total) { ENTER *available = *total = capacity; return SUCCESS; }
CUresult cuMemHostAlloc(void **pointer, size_t size, unsigned flags) {
    ENTER NOT_WHILE_CAPTURING
    Object *made = reserve(HOST, size);
    if (!made) return OUT_OF_MEMORY;
    made->mapped = flags & 2;
    *pointer = made->memory;
    return SUCCESS;
}
CUresult cuMemFreeHost(void *pointer) {
    ENTER
    Object *o = at((CUdeviceptr)pointer, 0);
    return o && o->kind == HOST ? delete(o) : INVALID_VALUE;
}
CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr *address, void *pointer, unsigned flags) {
    ENTER
    Object *o = at((CUdeviceptr)pointer, 0);
    *address = (CUdeviceptr)pointer;
    return o && o->kind == HOST && o->mapped ? SUCCESS : INVALID_VALUE;
}
static CUresult copy(CUdeviceptr gpu, const void *host, size_t size, void *stream, int is_upload) {
    Object *memory = at(gpu, size), *pages = at((CUdeviceptr)host, size);
    if (!find(stream, STREAM)) return INVALID_HANDLE;
    if (!memory || memory->kind != DEVICE || !pages || pages->kind != HOST) return INVALID_VALUE;
    if (is_upload) memcpy((void *)gpu, host, size);
    else memcpy((void *)host, (void *)gpu, size);
    return SUCCESS;
}
CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t size, void *stream) {
    ENTER return copy(to, from, size, stream, 1);
}
CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t size, void *stream) {
    ENTER return copy(from, to, size, stream, 0);
}

/* Streams and events */

CUresult cuStreamCreate(void **stream, unsigned flags) {
    ENTER *stream = add(STREAM);
    return flags == 1 ? SUCCESS : INVALID_VALUE;
}
CUresult cuStreamDestroy_v2(void *stream) { ENTER return delete(find(stream, STREAM)); }
CUresult cuStreamWaitEvent(void *stream, void *event, unsigned flags) {
    ENTER return find(stream, STREAM) && find(event, EVENT) ? SUCCESS : INVALID_HANDLE;
}
CUresult cuEventCreate(void **event, unsigned flags) {
    ENTER Object *made = add(EVENT);
    made->time_ms = -1;
    *event = made;
    return flags == 1 ? SUCCESS : INVALID_VALUE;
}
CUresult cuEventDestroy_v2(void *event) { ENTER return delete(find(event, EVENT)); }
CUresult cuEventRecord(void *event, void *stream) {
    ENTER Object *o = find(event, EVENT);
    if (!o || !find(stream, STREAM)) return INVALID_HANDLE;
    o->time_ms = now_ms();
    return SUCCESS;
}
CUresult cuEventSynchronize(void *event) {
    ENTER NOT_WHILE_CAPTURING
    usleep(1000 * event_wait_ms);
    return find(event, EVENT) ? SUCCESS : INVALID_HANDLE;
}
CUresult cuEventElapsedTime_v2(float *ms, void *first, void *second) {
    ENTER Object *a = find(first, EVENT), *b = find(second, EVENT);
    if (!a || !b || a->time_ms < 0 || b->time_ms < 0) return INVALID_HANDLE;
    *ms = b->time_ms - a->time_ms;
    return SUCCESS;
}
CUresult cuEventElapsedTime(float *ms, void *first, void *second) { return cuEventElapsedTime_v2(ms, first, second); }

/* Graphs: the tests do the work that a graph's number stands for. */

CUresult cuStreamBeginCapture_v2(void *stream, int mode) {
    ENTER Object *o = find(stream, STREAM);
    if (!o || o->capturing) return INVALID_VALUE;
    o->capturing = ++graphs;
    captures++;
    return SUCCESS;
}
CUresult cuStreamEndCapture(void *stream, void **graph) {
    Object *o = find(stream, STREAM);
    int number = o ? o->capturing : 0;
    if (number) o->capturing = 0, captures--; /* also where what follows fails */
    *graph = NULL;
    ENTER
    if (!number) return INVALID_VALUE;
    Object *made = add(GRAPH);
    made->capturing = number;
    *graph = made;
    return SUCCESS;
}
CUresult cuGraphInstantiateWithFlags(void **executable, void *graph, unsigned long long flags) {
    ENTER Object *o = find(graph, GRAPH);
    if (!o) return INVALID_VALUE;
    Object *made = add(EXECUTABLE);
    made->capturing = o->capturing;
    *executable = made;
    return SUCCESS;
}
CUresult cuGraphLaunch(void *executable, void *stream) {
    ENTER Object *o = find(executable, EXECUTABLE);
    if (!o || !find(stream, STREAM)) return INVALID_HANDLE;
    on_launch(o->capturing);
    return SUCCESS;
}
CUresult cuGraphDestroy(void *graph) { ENTER return delete(find(graph, GRAPH)); }
CUresult cuGraphExecDestroy(void *executable) { ENTER return delete(find(executable, EXECUTABLE)); }

/* Words, and where functions are */

CUresult cuGetErrorString(CUresult error, const char **text) {
    switch (error) {
    case SUCCESS: *text = "no error"; break;
    case INVALID_VALUE: *text = "invalid argument"; break;
    case OUT_OF_MEMORY: *text = "out of memory"; break;
    case INVALID_DEVICE: *text = "invalid device ordinal"; break;
    case INVALID_CONTEXT: *text = "invalid device context"; break;
    case INVALID_HANDLE: *text = "invalid resource handle"; break;
    case NOT_FOUND: *text = "named symbol not found"; break;
    case NOT_READY: *text = "device not ready"; break;
    case CONTEXT_IS_DESTROYED: *text = "context is destroyed"; break;
    case LAUNCH_FAILED: *text = "unspecified launch failure"; break;
    case STREAM_CAPTURE_UNSUPPORTED: *text = "operation not permitted when stream is capturing"; break;
    default: *text = NULL; return INVALID_VALUE;
    }
    return SUCCESS;
}
CUresult cuGetProcAddress_v2(const char *name, void **function, int version, unsigned long long flags, int *found) {
    static const char *suffixes[] = {"_v2", "", "WithFlags"};
    static void *self;
    Dl_info info;
    char full[128];
    if (!self && dladdr((void *)cuInit, &info)) self = dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD);
    *function = NULL;
    for (int i = 0; i < 3 && !*function; i++) {
        snprintf(full, sizeof full, "%s%s", name, suffixes[i]);
        *function = dlsym(self, full);
    }
    if (found) *found = *function ? 0 : 1;
    return *function ? SUCCESS : NOT_FOUND;
}

/* For the tests */

void gpu_set(int is_integrated, size_t bytes) { integrated = is_integrated; capacity = bytes; }
void gpu_fail(long call, int with) { calls = 0; fail_at = call; fail_with = with; failed = ""; }
void gpu_lose(int is_lost) { lost = is_lost; }
void gpu_destroy_context(void) { retained = 0; } /* as cudaDeviceReset of somebody else does */
void gpu_wait(int ms) { event_wait_ms = ms; }
void gpu_on_launch(void (*function)(int)) { on_launch = function; }
const char *gpu_failed(void) { return failed; }
long gpu_calls(void) { return calls; }
long gpu_allocations(void) { return allocations; }
int gpu_depth(void) { return depth; }
int gpu_retained(void) { return retained; }
int gpu_orphans(void) { int found = orphans; orphans = 0; return found; }
int gpu_left(int kind) {
    int count = 0;
    for (Object *o = objects; o; o = o->next) count += kind < 0 || (int)o->kind == kind;
    return count;
}
int gpu_capturing(void *stream) { Object *o = find(stream, STREAM); return o ? o->capturing : 0; }
int gpu_has(CUdeviceptr address, size_t size) { return at(address, size) != NULL; }

__attribute__((destructor)) static void report(void) {
    if (getenv("GPU_REPORT")) fprintf(stderr, "left %d, retained %d, current %d\n", gpu_left(-1), retained, depth);
}
