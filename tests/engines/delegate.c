/* A TFLite delegate that is real and tiny: it is asked whether it takes the graph, says how often in a file, and takes nothing.
 *
 * The C interface of external delegates. Source: tensorflow/lite/delegates/external/external_delegate.cc and
 * tensorflow/lite/core/c/common.h (TfLiteDelegate); only the fields that the runtime reads are filled in.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct TfLiteContext TfLiteContext;
typedef struct TfLiteDelegate {
    void *data_;
    int (*Prepare)(TfLiteContext *context, struct TfLiteDelegate *delegate);
    int (*CopyFromBufferHandle)(TfLiteContext *, struct TfLiteDelegate *, int, void *);
    int (*CopyToBufferHandle)(TfLiteContext *, struct TfLiteDelegate *, int, void *);
    void (*FreeBufferHandle)(TfLiteContext *, struct TfLiteDelegate *, int *);
    int64_t flags;
    void *opaque_delegate_builder;
} TfLiteDelegate;

static int prepare(TfLiteContext *context, TfLiteDelegate *delegate) {
    (void)context;
    FILE *file = fopen((const char *)delegate->data_, "a");
    if (!file) return 1;
    fputs("prepared\n", file);
    fclose(file);
    return 0;
}

TfLiteDelegate *tflite_plugin_create_delegate(char **keys, char **values, size_t count, void (*report)(const char *)) {
    const char *log = NULL;
    for (size_t i = 0; i < count; i++) {
        if (!strcmp(keys[i], "log")) log = values[i];
        if (!strcmp(keys[i], "fail")) { report("no such device"); return NULL; }
        if (!strcmp(keys[i], "crash")) abort();
    }
    if (!log) { report("option log is missing"); return NULL; }
    TfLiteDelegate *delegate = calloc(1, sizeof *delegate);
    delegate->data_ = strdup(log);
    delegate->Prepare = prepare;
    return delegate;
}

void tflite_plugin_destroy_delegate(TfLiteDelegate *delegate) {
    if (!delegate) return;
    free(delegate->data_);
    free(delegate);
}
